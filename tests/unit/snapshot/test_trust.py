"""What leads to a snapshot is checked as the snapshot is, by Python and by the launcher, in the same words."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from libcriu_py import Snapshot, SnapshotError, SnapshotUnsafe
from libcriu_py.snapshot import launcher
from tests.snapshots import launch_of_here, write_snapshot

if TYPE_CHECKING:
    from pathlib import Path

OTHER = 4711


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Return a snapshot in two directories of ours."""
    (tmp_path / "outer" / "inner").mkdir(parents=True, mode=0o755)
    return write_snapshot(tmp_path / "outer" / "inner" / "snap", launch_of_here())


def refusal(snapshot: Path) -> str:
    """Return what the launcher and Python both say."""
    done = subprocess.run(
        [launcher.path(), "--no-fallback", snapshot], check=False, capture_output=True, text=True, timeout=60
    )
    with pytest.raises(SnapshotError) as caught:
        Snapshot.open(snapshot)
    assert done.stderr == f"libcriu-py: {caught.value}\n"
    assert done.returncode == 126
    return str(caught.value)


def is_accepted(snapshot: Path) -> bool:
    """Return whether Python opens it, and the launcher comes to look at its files and pids."""
    Snapshot.open(snapshot)
    done = subprocess.run([launcher.path(), "--print-request", snapshot], check=False, capture_output=True, timeout=60)
    return done.returncode == 0


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_directory_on_the_way_that_others_can_write(snapshot: Path, mode: int) -> None:
    """They could rename the snapshot and put their own there."""
    way = snapshot.parents[1]
    if os.geteuid() == 0:
        os.chown(way, -1, OTHER)
    way.chmod(mode)
    if mode == 0o775 and os.geteuid() != 0:
        assert is_accepted(snapshot)  # the account's own group
    else:
        assert refusal(snapshot).startswith(f"{way} can be written by others (mode {mode:04o}), who could put")
    way.chmod(mode | 0o1000)
    assert is_accepted(snapshot)


def test_group_of_the_account_alone(snapshot: Path) -> None:
    """Many systems make directories writable for it."""
    snapshot.parent.chmod(0o775)
    assert is_accepted(snapshot) == (snapshot.parent.stat().st_gid == os.geteuid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_directory_on_the_way_of_another_user(snapshot: Path) -> None:
    """Its owner could do the same."""
    os.chown(snapshot.parent, OTHER, OTHER)
    assert refusal(snapshot).startswith(f"{snapshot.parent} belongs to uid {OTHER}, who could put")


@pytest.mark.parametrize("name", ["launch", "manifest.json"])
def test_link_in_the_place_of_a_file(snapshot: Path, name: str) -> None:
    """It is not followed, wherever it leads."""
    (snapshot / name).rename(snapshot.parent / name)
    (snapshot / name).symlink_to(snapshot.parent / name)
    with pytest.raises(SnapshotError, match=rf"{name} cannot be read .*symbolic links"):
        Snapshot.open(snapshot)


def test_directory_in_the_place_of_a_file(snapshot: Path) -> None:
    """It is refused in one sentence."""
    (snapshot / "manifest.json").unlink()
    (snapshot / "manifest.json").mkdir(mode=0o700)
    with pytest.raises(SnapshotError, match=r"manifest\.json cannot be read"):
        Snapshot.open(snapshot)


def test_way_through_a_symbolic_link(snapshot: Path, tmp_path: Path) -> None:
    """It is resolved first, and then the way is checked that it leads."""
    (tmp_path / "link").symlink_to(snapshot)
    assert is_accepted(tmp_path / "link")
    snapshot.parents[1].chmod(0o777)
    with pytest.raises(SnapshotUnsafe, match="can be written by others"):
        Snapshot.open(tmp_path / "link")
