"""The memory map of a process, from /proc/PID/maps."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class MappedRange(NamedTuple):
    """A line of /proc/PID/maps (fs/proc/task_mmu.c, show_map_vma)."""

    start: int
    end: int
    permissions: str
    """Such as "rw-p"."""
    device: str
    """Major and minor number in hexadecimal, as in mountinfo; "00:00" without a file."""
    inode: int
    path: str
    """The file's path, followed by " (deleted)" if it is; a name in brackets; or empty."""

    @property
    def size(self) -> int:
        """Return the length in bytes."""
        return self.end - self.start


def mapped_ranges(pid: int | str = "self", *, having: str = "") -> Iterator[MappedRange]:
    """
    Yield the mapped ranges of a process, by address; those mapped meanwhile may be missing.

    Args:
        pid: The process.
        having: What the line of a range must have; to leave out most of a thousand saves milliseconds.

    Raises:
        OSError: The process is gone, or must not be inspected.
    """
    with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if having in line:
                yield _range(line)


def advised_ranges() -> Iterator[tuple[MappedRange, list[str]]]:
    """
    List what this process has mapped, each range with its flags, such as "dc" for MADV_DONTFORK (proc_pid_smaps(5)).

    The kernel counts the pages of every range for that, which takes milliseconds.
    """
    found: MappedRange | None = None
    with open("/proc/self/smaps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            if line.startswith("VmFlags:"):
                if found is not None:
                    yield found, line.split()[1:]
            elif not line[0].isupper():
                found = _range(line)


def _range(line: str) -> MappedRange:
    addresses, permissions, _, device, inode, *path = line.rstrip("\n").split(None, 5)
    start, end = addresses.split("-")
    return MappedRange(int(start, 16), int(end, 16), permissions, device, int(inode), path[0] if path else "")
