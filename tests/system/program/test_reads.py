"""Variables of the environment that a program has read before the dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import record
from tests.system.cli_command import Command, write
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

MODULE = """
import locale, os, shutil, tempfile
from os import environ
SERVICE = os.environ.get("SERVICE", "none")
class Client:
    address = os.getenv("ADDRESS")
    has_proxy = "PROXY" in environ
    token = environ.get("API_TOKEN")
os.environ.setdefault("MODULE_SETTINGS", "mine")
os.environ["OWN"] = "own"
OWN = os.environ["OWN"]
ZONE, LANGUAGE = environ.get("TZ"), os.environb.get(b"LC_ALL")
for name in os.environ:
    os.environ[name]
COPIES = dict(os.environ), {**os.environ}, os.environ.copy(), list(os.environ.items())
tempfile.gettempdir(), shutil.get_terminal_size()
"""
MAIN = """
import module, os
print(module.SERVICE, module.Client.address, os.environ.get("LATE"))
"""
_TOKEN = "API_TOKEN"  # noqa: S105 - a name
AT_THE_DUMP = {"SERVICE": "a", "API_TOKEN": "secret", "LISTED": "1"}


@pytest.fixture
def command(mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]) -> Command:
    """Return the command, and a program."""
    root = mode_named("root")
    command = Command(root, directory_of(root.account))
    write(command.place / "module.py", MODULE)
    write(command.place / "main.py", MAIN)
    return command


def snapshot(command: Command, *options: str, **env: str) -> Path:
    """Make the snapshot."""
    snap = command.place / "snap"
    argv = ("snapshot", "-o", snap, *options, command.place / "main.py")
    done = command(*argv, env={**AT_THE_DUMP, **env})
    assert done.returncode == 0, done.stderr
    return snap


def refusal(command: Command, snap: Path, **env: str) -> str:
    """Return why a start with these variables beside those of the dump is refused."""
    given = {name: value for name, value in {**AT_THE_DUMP, **env}.items() if value != "-"}
    done = command("run", "--no-fallback", snap, env=given)
    assert (done.returncode, done.stdout) == (126, ""), done.stderr
    (line,) = done.stderr.splitlines()
    before, text = f"libcriu-py: {snap} cannot be restored here: ", str(line)
    assert text.startswith(before)
    return text.removeprefix(before).partition("; make the snapshot anew with that")[0]


def test_what_is_recorded(command: Command) -> None:
    """What the module read by name, as it was first; a secret without its value."""
    launch = record.decode((snapshot(command) / "launch").read_bytes())
    found = {read.name: (read.value, read.state) for read in launch.reads}
    digest = found.pop("API_TOKEN")
    assert found == {"SERVICE": ("a", 1), "ADDRESS": ("", 0), "PROXY": ("", 0), "MODULE_SETTINGS": ("mine", 3)}
    assert digest[1] == 2
    assert len(digest[0]) == 16


def test_other_value(command: Command) -> None:
    """It is a mismatch like any other, and the conventional start has it right."""
    snap = snapshot(command)
    assert command.restored(snap, env={**AT_THE_DUMP, "LISTED": "2", "TZ": "UTC", "LATE": "x"}) == "a None x\n"
    when = "when the program read it before the dump"
    assert refusal(command, snap, SERVICE="b") == f"SERVICE is 'b', and was 'a' {when}"
    assert refusal(command, snap, SERVICE="-") == f"SERVICE is not set, and was 'a' {when}"
    assert refusal(command, snap, ADDRESS="") == f"ADDRESS is '', and was not set {when}"
    told = "API_TOKEN, which the program has read before the dump, "
    assert refusal(command, snap, **{_TOKEN: "other"}) == f"{told}has another value now"
    assert refusal(command, snap, **{_TOKEN: "-"}) == f"{told}is not set now"
    done = command("run", snap, env={**AT_THE_DUMP, "SERVICE": "b"})
    assert done.stdout == "b None None\n"
    assert done.stderr.startswith("libcriu-py: starting conventionally: ")


def test_default_of_the_program(command: Command) -> None:
    """What the program has set where it found nothing is what its children have: copies too can be started so."""
    snap = snapshot(command)
    assert command.restored(snap, env={**AT_THE_DUMP, "MODULE_SETTINGS": "mine"}) == "a None None\n"
    told = "MODULE_SETTINGS is 'other', and was not set when the program read it before the dump"
    assert refusal(command, snap, MODULE_SETTINGS="other") == told


def test_levels(command: Command) -> None:
    """A warning is one line on stderr; the variable goes before what the snapshot says."""
    other = {**AT_THE_DUMP, "SERVICE": "b"}
    line = "libcriu-py: SERVICE is 'b', and was 'a' when the program read it before the dump\n"
    snap = snapshot(command, "--env-check", "warn")
    done = command("run", snap, env=other)
    assert (done.stdout, done.stderr) == ("a None None\n", line)
    assert command("run", snap, env={**other, "LIBCRIU_PY_ENV_CHECK": "off"}).stderr == ""
    assert command("run", "--no-fallback", snap, env={**other, "LIBCRIU_PY_ENV_CHECK": "error"}).returncode == 126
    snap = snapshot(command, "--replace", "--env-check", "off")
    assert command.restored(snap, env=other) == "a None None\n"


def test_from_python(command: Command) -> None:
    """`restore` compares the environment that it gives to the copy."""
    snap = snapshot(command)
    code = (
        "import os, sys, libcriu_py\nfrom libcriu_py.errors import SnapshotMismatch\n"
        "env = {**os.environ, 'ARGUMENTS': 'x'}\n"
        "copy = libcriu_py.restore(sys.argv[1], ['x', 'SERVICE=c'], env=env, stdout=-1, encoding='utf-8')\n"
        "print(copy.communicate()[0])\n"
        "try:\n    libcriu_py.restore(sys.argv[1], env={**env, 'SERVICE': 'b'})\n"
        "except libcriu_py.CriuError as error:\n    print(error)\n"
    )
    done = command.mode.run([command.mode.account.python, "-c", code, snap], env=AT_THE_DUMP)
    assert done.stderr == ""
    assert done.stdout.startswith(f"a None None\n\n{snap} cannot be restored here: SERVICE is 'b', and was 'a'")


def test_program_that_checkpoints_itself(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """What its main module reads behind the import of `checkpoint` counts; in copies `os.environ` is as always."""
    code = """
    import os
    from libcriu_py import checkpoint
    SERVICE = os.environ["SERVICE"]
    with checkpoint():
        pass
    print(SERVICE, type(os.environ) is os._Environ, os.environ.get("LATE"))
    """
    dump = take(mode, directory_of(mode.account), code, env={"SERVICE": "a"})
    assert dump.run(env={"SERVICE": "a", "LATE": "x"}).stdout == "a True x\n"
    refused = dump.run(env={"SERVICE": "b"})
    assert refused.returncode == 126
    assert "SERVICE is 'b', and was 'a'" in refused.stderr
