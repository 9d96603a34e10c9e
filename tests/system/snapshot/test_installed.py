"""Programs whose packages are upgraded, and whose directories change, after the snapshot."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import record
from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

MAIN = "import one, sys\nprint('main', one.X, sys.argv[1:])\n"


@pytest.fixture
def command(mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]) -> Command:
    """Return the command, and a program with an installed package."""
    root = mode_named("root")
    command = Command(root, directory_of(root.account))
    (command.place / "site-packages").mkdir()
    (command.place / "bin").mkdir()
    install(command, "one", "1.0")
    install(command, "unused", "1.0")
    write(command.place / "bin" / "main.py", MAIN)
    return command


def install(command: Command, name: str, version: str) -> Path:
    """Do as pip does, which replaces a file and its bytecode and makes a directory for the metadata; return that."""
    site = command.place / "site-packages"
    write(site / f"{name}.py", f"X = {version!r}\n")
    # The interpreter takes it for that of another source of the same size and the same second.
    shutil.rmtree(site / "__pycache__", ignore_errors=True)
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir()
    write(metadata / "RECORD", f"{name}.py,sha256=x,9\n{metadata.name}/RECORD,,\n")
    return metadata


def remove(metadata: Path) -> None:
    """Remove the metadata, and leave the rest."""
    for path in metadata.iterdir():
        path.unlink()
    metadata.rmdir()


def take(command: Command) -> Path:
    """Make the snapshot, or make it anew."""
    path = command.place / "snap"
    env = {"PYTHONPATH": str(command.place / "site-packages")}
    done = command("snapshot", "-o", path, "--replace", command.place / "bin" / "main.py", env=env)
    assert done.returncode == 0, done.stderr
    return path


def refusal(command: Command, snap: Path) -> str:
    """Return how launcher and inspect refuse a snapshot, which has to be in the same words."""
    env = {"PYTHONPATH": str(command.place / "site-packages")}
    done = command("run", "--no-fallback", snap, env=env)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (126, "", 1), done.stderr
    mismatches = json.loads(command("inspect", "--json", snap).stdout)["mismatches"]
    text = "; ".join(mismatch["text"] for mismatch in mismatches)
    assert done.stderr == f"libcriu-py: {snap} cannot be restored here: {text}\n"
    return text


def restored(command: Command, snap: Path) -> str:
    """Return what a copy prints."""
    return command.restored(snap, env={"PYTHONPATH": str(command.place / "site-packages")})


def test_upgraded_package(command: Command) -> None:
    """The program is started conventionally, with one line that names the package, until the snapshot is made anew."""
    snap = take(command)
    launch = record.decode((snap / "launch").read_bytes())
    metadata = command.place / "site-packages" / "one-1.0.dist-info"
    assert [file.path for file in launch.packages if file.path.startswith(str(command.place))] == [f"{metadata}/RECORD"]
    assert restored(command, snap) == "main 1.0 []\n"
    remove(metadata)
    install(command, "one", "1.1")
    assert refusal(command, snap) == (
        f"{command.place}/site-packages/one.py, whose code the snapshot holds, was changed after the dump; "
        f"make the snapshot anew (--replace); {metadata}/RECORD, of a package whose code the snapshot holds, "
        "is not there (No such file or directory); make the snapshot anew (--replace)"
    )
    env = {"PYTHONPATH": str(command.place / "site-packages")}
    assert command("run", snap, env=env).stdout == "main 1.1 []\n"
    assert restored(command, take(command)) == "main 1.1 []\n"


def test_same_version_installed_again(command: Command) -> None:
    """Its RECORD is another one, even if its modules have their old times."""
    snap = take(command)
    module = command.place / "site-packages" / "one.py"
    metadata = command.place / "site-packages" / "one-1.0.dist-info"
    before = module.stat()
    remove(metadata)
    install(command, "one", "1.0")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert refusal(command, snap).startswith(
        f"{metadata}/RECORD, of a package whose code the snapshot holds, was changed"
    )


def test_edited_package(command: Command) -> None:
    """An edit of an installed module is seen, as Python sees it, also where it leaves directories as they were."""
    snap = take(command)
    module = command.place / "site-packages" / "one.py"
    module.write_text("X = 'edited'\n", encoding="utf-8")
    assert refusal(command, snap) == (
        f"{module}, whose code the snapshot holds, was changed after the dump; make the snapshot anew (--replace)"
    )


@pytest.mark.parametrize("change", ["new package", "removed package", "module that comes first"])
def test_names_that_matter(command: Command, change: str) -> None:
    """Any package may be a plugin, and a module before another is imported in its place."""
    snap = take(command)
    where = command.place / "site-packages"
    if change == "new package":
        install(command, "two", "1.0")
    elif change == "removed package":
        remove(where / "unused-1.0.dist-info")
    else:
        where = command.place / "bin"
        write(where / "one.py", "X = 'mine'\n")
    assert refusal(command, snap) == (
        f"{where}, of the program's sys.path, has other packages than at the dump; make the snapshot anew (--replace)"
    )


def test_names_that_do_not_matter(command: Command) -> None:
    """What a program writes beside its script may come and go, also in a name that a module has."""
    snap = take(command)
    place = command.place / "bin"
    write(place / "out.csv", "")
    write(place / "another.py", "")
    (place / "json").mkdir()
    os.utime(command.place / "site-packages")
    assert restored(command, snap) == "main 1.0 []\n"
    (place / "json" / "__init__.py").touch()
    os.utime(place)
    assert "has other packages" in refusal(command, snap)


def test_working_directory_of_a_module(command: Command) -> None:
    """That of each copy comes first on the path of ``python -m``, whatever is in it."""
    env = {"PYTHONPATH": f"{command.place / 'site-packages'}:{command.place / 'bin'}"}
    here, there = command.place / "here", command.place / "there"
    for directory in (here, there):
        directory.mkdir()
    snap = command.place / "snap"
    done = command("snapshot", "-o", snap, "-m", "main", cwd=here, env=env)
    assert done.returncode == 0, done.stderr
    write(here / "json.py", "")
    assert command.restored(snap, cwd=there, env=env) == "main 1.0 []\n"
