"""What commands that were killed have left, and snapshots that are replaced while they are read."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py import Snapshot
from libcriu_py.snapshot import remains
from libcriu_py.snapshot.staging import Staging, replacing
from tests.snapshots import MANIFEST_OF_HERE, launch_of_here

if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = """
import sys
from libcriu_py.snapshot.staging import Staging
draft = Staging(sys.argv[1], replace=len(sys.argv) > 2)
draft.populate()
open(draft.images + "/pages-1.img", "wb").write(b"secret")
print("begun", flush=True)
sys.stdin.read()
"""
"""A command that is killed in the middle of a dump."""


def publish(draft: Staging, **details: object) -> None:
    """Complete a snapshot."""
    draft.populate()
    draft.publish(launch_of_here(), {**MANIFEST_OF_HERE, "details": details})


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return a snapshot."""
    publish(Staging(tmp_path / "snap", replace=False), old=True)
    return tmp_path / "snap"


@pytest.fixture
def maker(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Start a command that makes a snapshot."""
    command = [sys.executable, "-c", BEGIN, str(tmp_path / "snap"), *getattr(request, "param", ())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
        process.kill()


def test_directory_of_a_command_that_was_killed_is_used_again(maker: subprocess.Popen[str], tmp_path: Path) -> None:
    """While the command lives the directory is its own; what it leaves is removed by the next one."""
    with pytest.raises(FileExistsError, match="another snapshot is being made"):
        Staging(tmp_path / "snap", replace=False)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    publish(Staging(tmp_path / "snap", replace=False), new=True)
    assert Snapshot.open(tmp_path / "snap").details == {"new": True}
    assert not (tmp_path / "snap" / "images" / "pages-1.img").exists()
    assert remains.MARKER not in os.listdir(tmp_path / "snap")


def test_command_that_was_killed_need_not_be_reaped(maker: subprocess.Popen[str], tmp_path: Path) -> None:
    """A process that has ended and was not waited for makes no snapshot any more."""
    os.kill(maker.pid, signal.SIGKILL)
    os.waitid(os.P_PID, maker.pid, os.WEXITED | os.WNOWAIT)
    publish(Staging(tmp_path / "snap", replace=False))


@pytest.mark.parametrize("maker", [["replace"]], indirect=True)
def test_new_directory_of_a_command_that_was_killed_goes(
    snapshot: Path, maker: subprocess.Popen[str], tmp_path: Path
) -> None:
    """With memory of the program in it, it does not stay beside the snapshot that it was to replace."""
    publish(Staging(snapshot, replace=True), second=True)
    assert len(os.listdir(tmp_path)) == 2  # that of the living command stays
    maker.kill()
    maker.wait()
    publish(Staging(snapshot, replace=True), third=True)
    assert os.listdir(tmp_path) == ["snap"]


def test_maker_in_another_container(tmp_path: Path) -> None:
    """Its pid tells nothing: it lives until nothing has changed for an hour; one of another boot is dead."""
    place = tmp_path / "snap"
    place.mkdir(mode=0o700)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    (place / remains.MARKER).symlink_to(f"{boot}:1:1:1")
    assert not remains.is_left(str(place))
    os.utime(place, (0, 0))
    assert remains.is_left(str(place))
    (place / remains.MARKER).unlink()
    (place / remains.MARKER).symlink_to("another:1:1:1")
    assert remains.is_left(str(place))


def test_directory_of_somebody_else_is_not_cleared(tmp_path: Path) -> None:
    """Without the mark of a command nothing is removed, whatever is in the directory."""
    (tmp_path / "snap" / "images").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="is not empty"):
        Staging(tmp_path / "snap", replace=True)
    (tmp_path / "snap.new-0123456789ab").mkdir()
    (tmp_path / "snap.new-0123456789ab" / "precious").touch()
    remains.sweep(str(tmp_path / "snap"))
    assert (tmp_path / "snap.new-0123456789ab" / "precious").exists()


def test_replaced_snapshot_stays_until_its_last_reader_is_gone(snapshot: Path) -> None:
    """Whoever has begun to read the old one finds all its files; whoever comes then reads the new one."""
    reader = os.open(snapshot, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    replacing = threading.Thread(target=lambda: publish(Staging(snapshot, replace=True), new=True))
    replacing.start()
    while Snapshot.open(snapshot).details != {"new": True}:
        pass
    assert os.stat("images", dir_fd=reader).st_mode
    assert os.stat("launch", dir_fd=reader).st_size
    assert len(os.listdir(snapshot.parent)) == 2
    os.close(reader)
    replacing.join()
    assert os.listdir(snapshot.parent) == ["snap"]


def test_old_snapshot_with_a_slow_reader_is_removed_by_a_later_command(
    snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command does not wait for ever."""
    defaults = remains.remove.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "patience", 0.0)
    reader = os.open(snapshot, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(reader, fcntl.LOCK_SH)
    publish(Staging(snapshot, replace=True), new=True)
    assert os.stat("launch", dir_fd=reader).st_size
    os.close(reader)
    assert len(os.listdir(snapshot.parent)) == 2
    publish(Staging(snapshot, replace=True), newer=True)
    assert os.listdir(snapshot.parent) == ["snap"]


def test_failure_beside_a_snapshot_leaves_nothing(snapshot: Path) -> None:
    """The snapshot is as it was, and nothing is beside it."""

    def fail() -> None:
        with replacing(Snapshot.open(snapshot)):
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        fail()
    assert Snapshot.open(snapshot).details == {"old": True}
    assert os.listdir(snapshot.parent) == ["snap"]
