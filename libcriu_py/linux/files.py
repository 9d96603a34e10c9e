"""Small files of /proc and /sys (Documentation/filesystems/proc.rst)."""

from __future__ import annotations


def read_small(path: str) -> bytes | None:
    """Return what a small file holds, without the space around it; None where it is hidden."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().strip()
    except OSError:
        return None


def status(pid: int | str = "self") -> dict[str, str]:
    """
    Return /proc/PID/status by name.

    Args:
        pid: The process.

    Raises:
        OSError: There is no such process, or it may not be looked at.
    """
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def stat(pid: int | str = "self") -> list[str]:
    """
    Return the fields of /proc/PID/stat behind the name of the program: the state comes first (fs/proc/array.c).

    Args:
        pid: The process.

    Raises:
        OSError: There is no such process, or it may not be looked at.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode("ascii").split()


def fdinfo(fd: int | str, pid: int | str = "self") -> list[list[str]]:
    """
    Return the lines of what the kernel tells of a descriptor, each as its words; the first word ends with a colon.

    Args:
        fd: The descriptor.
        pid: The process that has it open.

    Raises:
        OSError: There is no such descriptor, or it may not be looked at.
    """
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
        return [words for words in map(str.split, file) if words]
