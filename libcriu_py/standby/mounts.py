"""
What a copy sees mounted: a waiting one in a mount namespace of its own may miss what is mounted later.

Where the mounts of the machine are shared, as systemd has them, new ones show up there too; in containers often not.
"""

from __future__ import annotations

import os
import select


class Mounts:
    """
    The mounts of this process.

    Thread safety: none.
    """

    def __init__(self) -> None:
        """Begin to watch."""
        self._file = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._poller = select.poll()
        self._poller.register(self._file, select.POLLPRI)

    def have_changed(self) -> bool:
        """Tell whether they are others than at the last call (mounts_poll in fs/proc_namespace.c)."""
        return bool(self._poller.poll(0))

    def close(self) -> None:
        """Watch no longer."""
        os.close(self._file)


def mounts_of(pid: int) -> frozenset[tuple[bytes, ...]] | None:
    """
    Give what a process sees mounted: device, root, place and options of each mount but those of /proc, its own.

    Returns:
        None where that cannot be told.
    """
    try:
        with open(f"/proc/{pid}/mountinfo", "rb") as file:
            mounts = [tuple(line.split()[2:6]) for line in file]
    except OSError:
        return None
    return frozenset(mount for mount in mounts if mount[2] != b"/proc" and not mount[2].startswith(b"/proc/"))
