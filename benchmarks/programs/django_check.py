"""Run a management command of a Django project: the check of its settings, models and routes."""

from __future__ import annotations

import django
from django.conf import settings
from django.core.management import call_command

APPS = ("admin", "auth", "contenttypes", "messages", "sessions")
MIDDLEWARE = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
PROCESSORS = (
    "django.template.context_processors.request",
    "django.contrib.auth.context_processors.auth",
    "django.contrib.messages.context_processors.messages",
)


def configure() -> None:
    """Set the project up."""
    if settings.configured:  # it can be done once in a process
        return
    settings.configure(
        SECRET_KEY="not one",  # noqa: S106
        INSTALLED_APPS=[f"django.contrib.{name}" for name in APPS],
        MIDDLEWARE=MIDDLEWARE,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {"context_processors": PROCESSORS},
            }
        ],
    )
    django.setup()


def main() -> None:
    """Set up the project and check it."""
    configure()
    call_command("check")
    print("ready", django.get_version(), flush=True)


if __name__ == "__main__":
    main()
