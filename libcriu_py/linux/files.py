"""Small files of /proc and /sys (Documentation/filesystems/proc.rst)."""

from __future__ import annotations


def read_small(path: str) -> bytes | None:
    """Return the stripped content of a small file; None if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().strip()
    except OSError:
        return None


def status(pid: int | str = "self") -> dict[str, str]:
    """
    Return the fields of /proc/PID/status by name.

    Args:
        pid: The process.

    Raises:
        OSError: The process does not exist, or must not be inspected.
    """
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def stat(pid: int | str = "self") -> list[str]:
    """
    Return the fields of /proc/PID/stat after the program's name, the state first (fs/proc/array.c).

    Args:
        pid: The process.

    Raises:
        OSError: The process does not exist, or must not be inspected.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].decode("ascii").split()


def fdinfo(fd: int | str, pid: int | str = "self") -> list[list[str]]:
    """
    Return the lines of /proc/PID/fdinfo/FD, split into words; the first word of each is the name with its colon.

    Args:
        fd: The descriptor.
        pid: The process that has it open.

    Raises:
        OSError: The descriptor does not exist, or must not be inspected.
    """
    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
        return [words for words in map(str.split, file) if words]
