"""Snapshots of which a byte has changed: none is ever restored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py import Snapshot, SnapshotError, restore
from libcriu_py.linux.runtime_dir import private_directory
from libcriu_py.snapshot import launcher
from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

LARGE = ("memory.img", "images/pages-1.img")


@pytest.fixture
def snapshot(mode_named: Callable[[str], Mode], own_account: Account, directory_of: Callable[[Account], Path]) -> Path:
    """Return a snapshot of this account."""
    command = Command(mode_named("root" if os.geteuid() == 0 else "rootless"), directory_of(own_account))
    script = write(command.place / "main.py", "print('ran')\n")
    done = command("snapshot", "-o", command.place / "snap", "--memory", "map", script)
    assert done.returncode == 0, done.stderr
    return command.place / "snap"


def start(snapshot: Path, verify: str = "") -> str:
    """Return what comes of a start without fallback: what the program printed, or why it was not restored."""
    done = subprocess.run(
        [launcher.path(), "--no-fallback", snapshot],
        env={**os.environ, "LIBCRIU_PY_VERIFY": verify},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == (0 if done.stdout else 126)
    return done.stdout + done.stderr


def flip(path: Path, *, unseen: bool = False) -> None:
    """Change a byte in the middle of a file; unseen, such that the kernel tells the same of it but for its ctime."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(status.st_size // 2)
        (value,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 0x10]))
    if unseen:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def note(snapshot: Path) -> Path:
    """Return where it is noted that the large files are as they should be."""
    status = snapshot.stat()
    return Path(private_directory(), f"sound-{status.st_dev:x}-{status.st_ino:x}")


def test_flipped_byte_is_found_in_each_file(snapshot: Path) -> None:
    """Whatever the file, small or large, and also where somebody has put its time back."""
    names = [name for name, file in Snapshot.open(snapshot).files.items() if file.size]
    assert {*LARGE, "images/files.img"} <= {*names}
    for name in names:
        shutil.copy2(snapshot / name, snapshot.parent / "kept")
        (snapshot / name).chmod(0o600)
        flip(snapshot / name, unseen=True)
        assert start(snapshot).endswith(f"/{name} is damaged: its checksum differs; make the snapshot anew\n"), name
        with pytest.raises(SnapshotError, match="is damaged: its checksum differs"):
            restore(snapshot)
        shutil.copy2(snapshot.parent / "kept", snapshot / name)
        assert start(snapshot) == "ran\n"


def test_files_that_were_touched_and_are_sound_are_noted_anew(snapshot: Path) -> None:
    """The next start does not read them again: it would find what is changed behind the kernel's back."""
    before = note(snapshot).read_text()
    assert before.endswith(" read\n")
    os.utime(snapshot / "memory.img")
    assert start(snapshot) == "ran\n"
    after = note(snapshot).read_text()
    assert after != before
    assert after.endswith(" read\n")
    assert start(snapshot) == "ran\n"
    assert note(snapshot).read_text() == after


def test_what_a_level_promises_where_nothing_is_known(snapshot: Path) -> None:
    """As on another machine, or after a boot: "arrival" trusts what brought the files, and watches from then on."""
    flip(snapshot / "images" / "pages-1.img")
    note(snapshot).unlink()
    assert "pages-1.img is damaged" in start(snapshot, "once")
    assert not note(snapshot).exists()
    assert "pages-1.img is damaged" in start(snapshot, "always")
    with pytest.raises(SnapshotError, match=r"pages-1\.img is damaged"):
        restore(snapshot, verify="once")
    # What this comes to nobody can say, but that it ends.
    subprocess.run([launcher.path(), "--no-fallback", snapshot], check=False, capture_output=True, timeout=60)
    assert note(snapshot).read_text().endswith(" seen\n")
    assert "pages-1.img is damaged" in start(snapshot, "once")
    os.utime(snapshot / "images" / "pages-1.img")
    assert "pages-1.img is damaged" in start(snapshot, "arrival")


def test_once_reads_once(snapshot: Path) -> None:
    """A level that nothing has been read for reads; what was read is trusted."""
    assert note(snapshot).read_text().endswith(" read\n")
    note(snapshot).write_text("another boot\n")
    assert start(snapshot, "once") == "ran\n"
    assert note(snapshot).read_text().endswith(" read\n")


def test_level_that_does_not_exist(snapshot: Path) -> None:
    """It is named, by the launcher and by Python."""
    done = subprocess.run(
        [launcher.path(), "--no-fallback", snapshot],
        env={**os.environ, "LIBCRIU_PY_VERIFY": "never"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "LIBCRIU_PY_VERIFY must be arrival, once or always, not 'never'" in done.stderr
    assert done.returncode == 125
    with pytest.raises(ValueError, match='verify must be "arrival", "once" or "always"'):
        restore(snapshot, verify="never")  # type: ignore[call-overload]


def test_fifo_in_the_place_of_a_file(snapshot: Path) -> None:
    """Nobody waits for a writer."""
    for name in LARGE:
        (snapshot / name).rename(snapshot.parent / "kept")
        os.mkfifo(snapshot / name, 0o600)
        assert name in start(snapshot)
        (snapshot / name).unlink()
        (snapshot.parent / "kept").rename(snapshot / name)


def test_verify_command(snapshot: Path, one: Command) -> None:
    """It names what is damaged, and what it has read is trusted on this boot."""
    copy = snapshot.parent / "copy"
    shutil.copytree(snapshot, copy)
    done = one("verify", copy)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("nothing is damaged: ")
    assert note(copy).exists()
    for name in ("memory.img", "images/inventory.img"):
        (copy / name).chmod(0o600)
        flip(copy / name)
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text.replace('"mapped"', '"Mapped"').replace("cpython", "CPython"))
    done = one("verify", copy)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("is damaged: its checksum differs") == 3
    done = one("verify", "--json", copy)
    found = json.loads(done.stdout)
    assert (done.returncode, done.stderr, found["path"]) == (1, "", str(copy))
    assert len(found["damaged"]) == 3
    assert found["read"] == json.loads(one("verify", "--json", snapshot).stdout)["read"] > 1 << 20
