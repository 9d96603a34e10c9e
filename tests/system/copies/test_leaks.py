"""The check that a test leaves nothing behind sees what is left."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.system import leaks


def test_nothing_left_nothing_said() -> None:
    """A test that cleans up passes."""
    before = leaks.observe()
    subprocess.run(["true"], check=True)
    assert leaks.left_behind(before) == []


def test_descriptor_is_seen() -> None:
    """An open descriptor is named with what it is open on."""
    before = leaks.observe()
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        assert leaks.left_behind(before) == [f"fd {fd} is open on /dev/zero"]
    finally:
        os.close(fd)


def test_zombie_is_seen_and_reaped() -> None:
    """A child that nobody has waited for is named, and waited for."""
    before = leaks.observe()
    pid = os.posix_spawn("/bin/true", ["true"], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert leaks.left_behind(before) == [f"child {pid} is a zombie: nobody has waited for it"]
    assert leaks.left_behind(before) == []


def test_orphan_is_seen_and_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose parent has gone is known by its environment."""
    monkeypatch.setattr(leaks, "GRACE", 0.2)
    before = leaks.observe()
    script = "sleep 600 >/dev/null 2>&1 & echo $!"
    pid = int(subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout)
    said = f"process {pid} is still running: sleep 600"
    assert said in leaks.left_behind(before)  # and, for so little grace, maybe another test process's file
    assert said not in leaks.left_behind(before)


def test_process_that_ends_in_time_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is about to end is given the time to."""
    monkeypatch.setattr(leaks, "GRACE", 30)
    before = leaks.observe()
    subprocess.run(["sh", "-c", "sleep 0.2 >/dev/null 2>&1 &"], check=True)
    assert leaks.left_behind(before) == []


def test_temporary_file_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the directory for temporary files, or in the package's own on a tmpfs, is named."""
    monkeypatch.setattr(leaks, "GRACE", 0.2)
    own = Path(f"/dev/shm/libcriu_py-{os.geteuid()}")
    made_own = not own.exists()
    own.mkdir(mode=0o700, exist_ok=True)
    before = leaks.observe()
    # The latter is all users' processes' own: with our pid in its name other test processes leave it alone.
    paths = [Path(tempfile.gettempdir()) / "left", own / f"work-{os.getpid()}-left"]
    try:
        for path in paths:
            path.touch()
        # With so little grace a file that another test process is about to remove may be named, too.
        assert {f"{path} is left" for path in paths} <= set(leaks.left_behind(before))
    finally:
        for path in paths:
            path.unlink()
        if made_own:
            own.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_mount_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mounted where all see it, as a namespace that is held there."""
    monkeypatch.setattr(leaks, "GRACE", 0.2)
    before = leaks.observe()
    place = tempfile.mkdtemp()
    subprocess.run(["/bin/mount", "--bind", place, place], check=True)
    try:
        assert f"something is mounted on {place}" in leaks.left_behind(before)
    finally:
        subprocess.run(["/bin/umount", place], check=True)
        Path(place).rmdir()
