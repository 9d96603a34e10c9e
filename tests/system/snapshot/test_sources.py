"""Programs whose own source files are changed after the snapshot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import record
from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

MAIN = "import helper\nprint('main', 1, helper.X)\n"
CHANGED = "whose code the snapshot holds, was changed after the dump; make the snapshot anew (--replace)"
GONE = "whose code the snapshot holds, is not there (No such file or directory)"


@pytest.fixture
def command(mode: Mode, directory_of: Directories) -> Command:
    """Return the command, and a program with a module of its own."""
    command = Command(mode, directory_of(mode.account))
    write(command.place / "helper.py", "X = 1\n")
    write(command.place / "main.py", MAIN)
    return command


def snapshot(command: Command, *args: object, **env: str) -> Path:
    """Make the snapshot, or make it anew."""
    path = command.place / "snap"
    done = command("snapshot", "-o", path, "--replace", *args, cwd=command.place, env=env)
    assert done.returncode == 0, done.stderr
    return path


def refusal(command: Command, snap: Path, **env: str) -> str:
    """Return how launcher and inspect refuse a snapshot, which has to be in the same words."""
    done = command("run", "--no-fallback", snap, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (126, "", 1)
    inspected = command("inspect", "--json", snap, env=env)
    assert inspected.returncode == 1
    (mismatch,) = json.loads(inspected.stdout)["mismatches"]
    assert mismatch["fatal"]
    assert done.stderr == f"libcriu-py: {snap} cannot be restored here: {mismatch['text']}\n"
    assert "fits this machine" not in command("inspect", snap).stdout
    text: str = mismatch["text"]
    return text


def recorded(snap: Path) -> list[str]:
    """Return the paths that are compared, but those of .pth files' modules."""
    files = record.decode((snap / "launch").read_bytes()).sources
    return [file.path for file in files if "/_distutils_hack/" not in file.path]


def test_a_changed_module_is_not_restored(command: Command) -> None:
    """The program is started conventionally, with one line that names the file, until the snapshot is made anew."""
    helper = command.place / "helper.py"
    snap = snapshot(command, "main.py")
    assert recorded(snap) == [str(helper)]
    assert command.restored(snap, cwd=command.place) == "main 1 1\n"
    helper.write_text("X = 'two'\n")
    assert refusal(command, snap) == f"{helper}, {CHANGED}"
    done = command("run", snap, cwd=command.place)
    assert (done.returncode, done.stdout) == (0, "main 1 two\n")
    assert done.stderr.startswith("libcriu-py: starting conventionally: ")
    assert f"{helper}, {CHANGED}" in done.stderr
    assert done.stderr.count("\n") == 1
    snapshot(command, "main.py")
    assert command.restored(snap, cwd=command.place) == "main 1 two\n"
    helper.unlink()
    assert refusal(command, snap).startswith(f"{helper}, {GONE}")


def test_the_main_module_of_a_prepared_program_may_change(command: Command) -> None:
    """It is read anew by each copy, also where it was run before the dump, and by its name."""
    main = command.place / "main.py"
    for args in (["main.py"], ["--warm-up", "", "main.py"], ["-m", "main"]):
        main.write_text(MAIN)
        snap = snapshot(command, *args)
        assert recorded(snap) == [str(command.place / "helper.py")]
        main.write_text(MAIN.replace("1", "'anew'"))
        assert command.restored(snap, cwd=command.place) == "main anew 1\n"


def test_the_main_module_of_a_program_that_checkpoints_itself_may_not(command: Command) -> None:
    """Its code is in the snapshot."""
    main = write(
        command.place / "main.py",
        "import helper\nfrom libcriu_py import checkpoint\nwith checkpoint():\n    pass\nprint('main', helper.X)\n",
    )
    snap = snapshot(command, "main.py")
    assert recorded(snap) == [str(command.place / "helper.py"), str(main)]
    assert command.restored(snap) == "main 1\n"
    main.write_text(main.read_text() + "print('more')\n")
    assert refusal(command, snap) == f"{main}, {CHANGED}"


def test_an_interpreter_with_modules(command: Command) -> None:
    """What it was told to preload is compared, and what an interpreter reads at its start."""
    env = {"PYTHONPATH": str(command.place)}
    snap = snapshot(command, "--preload", "helper", **env)
    assert [path for path in recorded(snap) if not path.endswith((".pth", "pyvenv.cfg"))] == [
        str(command.place / "helper.py")
    ]
    main = write(command.place / "other.py", MAIN)
    assert command.restored(snap, main, cwd=command.place, env=env) == "main 1 1\n"
    (command.place / "helper.py").write_text("X = 'two'\n")
    assert refusal(command, snap, **env) == f"{command.place / 'helper.py'}, {CHANGED}"


def test_from_python(command: Command) -> None:
    """`restore` raises, as for files that were mapped."""
    snap = snapshot(command, "main.py")
    (command.place / "helper.py").write_text("X = 'two'\n")
    code = (
        "import sys, libcriu_py\nfrom libcriu_py.errors import SnapshotMismatch\n"
        "try:\n    libcriu_py.restore(sys.argv[1])\nexcept SnapshotMismatch as error:\n    print(error)\n"
    )
    done = command.mode.run([command.mode.account.python, "-c", code, snap])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{snap} cannot be restored here: {command.place / 'helper.py'}, {CHANGED}\n"
