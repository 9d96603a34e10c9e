"""The mounts that a process sees, from /proc/PID/mountinfo (Documentation/filesystems/proc.rst, 3.5)."""

from __future__ import annotations

import os
import re
import select
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.files import fdinfo

if TYPE_CHECKING:
    from collections.abc import Iterator


class Mount(NamedTuple):
    """A mount in a mount namespace."""

    number: int
    """The kernel's id of the mount, as `mnt_id` in fdinfo."""
    device: str
    """Major and minor number in hexadecimal, as in /proc/PID/maps (show_map_vma, fs/proc/task_mmu.c)."""
    root: str
    """The mounted directory within the file system."""
    point: str
    """The mount point."""
    options: frozenset[str]
    """Options of the mount."""
    kind: str
    """The type of the file system."""
    super_options: frozenset[str]
    """Options of the file system."""


def mounts(pid: int | str = "self") -> Iterator[Mount]:
    """
    Yield the mounts that a process sees, in the order in which they were mounted.

    Args:
        pid: The process.

    Raises:
        OSError: The process does not exist, or must not be inspected.
    """
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            number, _, device, root, point, options, *_ = left.split()
            kind, _, super_options = right.rstrip("\n").split(" ", 2)
            major, minor = map(int, device.split(":"))
            yield Mount(
                int(number),
                f"{major:02x}:{minor:02x}",
                _unescaped(root),
                _unescaped(point),
                frozenset(options.split(",")),
                kind,
                frozenset(super_options.split(",")),
            )


def _unescaped(path: str) -> str:
    """Undo the octal escapes of spaces, tabs, newlines and backslashes (mangle, fs/proc_namespace.c)."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), path) if "\\" in path else path


def known_mounts(kind: str | None = None) -> frozenset[int]:
    """
    Return the ids of the mounts in this mount namespace.

    Args:
        kind: The file system type; None for all.
    """
    return frozenset(mount.number for mount in mounts() if kind is None or mount.kind == kind)


def mount_of(fd: int | str, pid: int | str = "self") -> int:
    """Return the id of the mount on which a descriptor's file was opened."""
    return next(int(words[1]) for words in fdinfo(fd, pid) if words[0] == "mnt_id:")


def mounts_of(pid: int) -> frozenset[tuple[str, str, str, frozenset[str]]] | None:
    """
    Return the mounts that a process sees, except /proc and what is below it: it is each process's own.

    Returns:
        Device, root, mount point and options of each; None if the process cannot be inspected.
    """
    try:
        seen = [(mount.device, mount.root, mount.point, mount.options) for mount in mounts(pid)]
    except OSError:
        return None
    return frozenset(mount for mount in seen if mount[2] != "/proc" and not mount[2].startswith("/proc/"))


class Watch:
    """
    Detects changes of the mounts that this process sees.

    Thread safety: none.
    """

    def __init__(self) -> None:
        """Start watching."""
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(self._file, select.POLLPRI)

    def have_changed(self) -> bool:
        """Return whether mounts have changed since the last call (mounts_poll in fs/proc_namespace.c)."""
        return bool(self._poller.poll(0))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._file)
