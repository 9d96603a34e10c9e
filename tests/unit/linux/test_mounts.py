"""The one reader of mountinfo."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py.linux.mounts import known_mounts, mount_of, mounts

if TYPE_CHECKING:
    from pathlib import Path


def test_every_mount_is_read_with_its_options() -> None:
    """/proc is there, and is a proc."""
    seen = list(mounts())
    assert {mount.point: mount.kind for mount in seen}["/proc"] == "proc"
    assert all(mount.point.startswith("/") and mount.options and mount.super_options for mount in seen)


def test_a_file_is_on_a_known_mount() -> None:
    """The id in fdinfo is one of mountinfo, and of no other type of file system."""
    fd = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert mount_of(fd) in known_mounts("proc")
        assert mount_of(fd) not in known_mounts("tmpfs")
    finally:
        os.close(fd)


def test_a_mount_point_with_a_space_is_read_as_it_is(tmp_path: Path) -> None:
    """The kernel writes the space as an octal number, and the device as maps does."""
    if os.geteuid():
        pytest.skip("only root can mount")
    point = tmp_path / "a b\\c"
    point.mkdir()
    code = (
        "import os, sys; from libcriu_py.linux.mounts import mounts; point = sys.argv[1]\n"
        "found = [mount for mount in mounts() if mount.point == point]\n"
        "device = os.stat(point).st_dev; print(len(found), found[0].kind,"
        " found[0].device == f'{os.major(device):02x}:{os.minor(device):02x}')"
    )
    script = 'mount -t tmpfs none "$1" && exec "$2" -c "$3" "$1"'
    argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(point), sys.executable, code]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split() == ["1", "tmpfs", "True"]
