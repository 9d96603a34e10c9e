"""Which variables are taken for secrets, by name and by value."""

from __future__ import annotations

import pytest

from libcriu_py.resources.secrets import Secrets, is_secret

NAMES = [
    "GITHUB_TOKEN",
    "aws_secret_access_key",
    "DB_PASSWORD",
    "DATABASE_URL",
    "SENTRY_DSN",
    "NPM_AUTH",
    "DB_PASS",
    "STRIPE_KEY",
    "SIGNING_KEY",
    "GH_PAT",
    "JWT",
    "COOKIE",
    "SSHPASS",
    "MONGODB_URI",
    "AMQP_URL",
    "CELERY_BROKER_URL",
    "REDIS_URL",
    "PGPASSWORD",
    "DB_PWD",
    "MYSQL_PWD",
    "API_KEYS",
    "SESSION_COOKIES",
    "MYAPIKEY",
    "GITHUBTOKEN",
    "authToken",
    "npm_config__authToken",
    "OAUTH_CLIENT",
    "LUKSPASS",
    "AZURE_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
    "PRIVKEY",
    "JWT_PRIVATE",
    "DOCKER_AUTH_CONFIG",
    "TOTP_SECRETS",
    "STORAGE_CONNECTION_STRING",
]
HARMLESS = [
    "PATH",
    "HOME",
    "LANG",
    "PYTHONPATH",
    "TERM",
    "TZ",
    "SSH_AUTH_SOCK",
    "KEYBOARD",
    "PWD",
    "OLDPWD",
    "TOKENIZERS_PARALLELISM",
    "BYPASS_CACHE",
    "COMPASS_PORT",
    "KEYMAP",
    "PATIENCE",
    "PASSENGER_PORT",
    "AUTHOR",
    "GIT_AUTHOR_NAME",
    "XAUTHORITY",
    "OAUTHLIB_INSECURE_TRANSPORT",
    "KERAS_BACKEND",
    "DJANGO_SETTINGS_MODULE",
    "MONKEY",
    "HOSTNAME",
    "OMP_NUM_THREADS",
    "COOKIECUTTER_CONFIG",
]
VALUES = (
    b"postgres://me:hunter2@db/app",
    b"redis://:hunter2@cache:6379/0",
    b"https://0123456789abcdef@sentry.example/1",
    b"Server=db;User Id=me;Password=hunter2;",
    b"DefaultEndpointsProtocol=https;AccountName=me;AccountKey=abc==",
    b"https://blob.example/x?sv=1&sig=abcdef",
    b"-----BEGIN RSA PRIVATE KEY-----",
    b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x",
    b"ghp_0123456789abcdefghij",
    b"AKIA0123456789ABCDEF",
)
PLAIN = (
    b"",
    b"https://example.org/a:b@c",
    b"postgres://db/app",
    b"1",
    b"a,b=c",
    b"git@example.org:x.git",
    b"sk-",
    b"/a:/b",
)


@pytest.mark.parametrize("name", NAMES)
def test_secret_by_name(name: str) -> None:
    """A word of the name is enough, in any case."""
    assert is_secret(name)
    assert is_secret(name.lower())
    assert is_secret(name, b"hunter2")


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_by_name(name: str) -> None:
    """Words that only look like others are none."""
    assert not is_secret(name, b"something")


@pytest.mark.parametrize("value", VALUES)
def test_secret_by_value(value: bytes) -> None:
    """Whatever the name is; it is not copied to be looked at."""
    assert is_secret("ADDRESS", memoryview(bytearray(value)))


@pytest.mark.parametrize("value", PLAIN)
def test_harmless_by_value(value: bytes) -> None:
    """Addresses without passwords stay."""
    assert not is_secret("ADDRESS", value)


def test_switches_are_no_secrets() -> None:
    """A library that sets one for its copies means it."""
    assert not is_secret("USE_AUTH", b"true")
    assert is_secret("USE_AUTH", b"true love")


def test_patterns_and_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept goes before everything else; "all" is of what the process was started with."""
    monkeypatch.setenv("LIBCRIU_PY_KEEP_ENV", "STRIPE_*, PLAIN")
    given = Secrets(patterns=["*_PIN", "all"], keep=["CARD_PIN"])
    assert not any(given.covers(name) for name in ("CARD_PIN", "STRIPE_KEY", "PLAIN", "DJANGO_SETTINGS_MODULE"))
    assert given.covers("MY_PIN")
    assert given.covers_of_start("DJANGO_SETTINGS_MODULE")
    assert not any(given.covers_of_start(name) for name in ("PLAIN", "CARD_PIN", "PATH", "PYTHONHASHSEED"))
