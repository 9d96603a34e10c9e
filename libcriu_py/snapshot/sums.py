"""
Sums of a snapshot's files: CRC-32C, against damage and not against tampering, whose sums could be changed as well.

Small files are compared at each start, by the launcher (restore/sums.h). Of large ones a note in this user's directory
on tmpfs says that they were as they should be, and what the kernel told of them then.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from typing import TYPE_CHECKING

from libcriu_py.errors import CriuError, SnapshotUnsafe
from libcriu_py.linux import checksum
from libcriu_py.linux.files import read_small
from libcriu_py.snapshot.record import LAUNCH, MANIFEST, FileEntry
from libcriu_py.snapshot.trust import refuse_unsafe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libcriu_py.snapshot.identity import Mismatch
    from libcriu_py.snapshot.manifest import Snapshot

_SEAL = b',\n "sum": "%08x"\n}\n'
_SEAL_SIZE = len(_SEAL % 0)
_CHECKSUM = slice(8, 12)
"""That of a launch record, in its header."""
# A FIFO in the place of a file must not make us wait.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


def entry(path: str) -> FileEntry:
    """Return size and sum of a file."""
    fd = os.open(path, _FLAGS)
    try:
        return FileEntry(os.fstat(fd).st_size, checksum.sum_file(fd))
    finally:
        os.close(fd)


def sealed(text: bytes) -> bytes:
    """Return the text of a JSON object with its sum as the last entry."""
    body = text.rstrip()[:-1].rstrip()
    return body + _SEAL % checksum.sum_bytes(body)


def difference(directory: str, name: str, recorded: FileEntry) -> str | None:
    """
    Compare a file with what is recorded of it.

    Args:
        directory: That of the snapshot.
        name: The file.
        recorded: What it should be.

    Returns:
        What is wrong, in the words of the launcher; None where nothing is.
    """
    path = os.path.join(directory, name)
    try:
        fd = _open(directory, name)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}); make the snapshot anew"
    try:
        status = os.fstat(fd)
        refuse_unsafe(path, status)
        if not stat.S_ISREG(status.st_mode):
            return f"{path} cannot be read (Invalid argument); make the snapshot anew"
        if status.st_size != recorded.size:
            return f"{path} has {status.st_size} bytes instead of {recorded.size}; make the snapshot anew"
        if checksum.sum_file(fd) != recorded.sum:
            return f"{path} is damaged: its checksum differs; make the snapshot anew"
    except SnapshotUnsafe as error:
        return str(error)
    finally:
        os.close(fd)
    return None


def _open(directory: str, name: str) -> int:
    """Open a file of a snapshot, with no link on the way to it."""
    way, base = os.path.split(name)
    inner = os.open(os.path.join(directory, way), os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.open(base, _FLAGS, dir_fd=inner)
    finally:
        os.close(inner)


def verify(snapshot: Snapshot) -> list[Mismatch]:
    """
    Compare all files of a snapshot but its log with their sums; the record is compared when it is opened.

    Args:
        snapshot: The snapshot.

    Returns:
        What is wrong.
    """
    from libcriu_py.snapshot.identity import Mismatch

    compared = (difference(snapshot.path, name, recorded) for name, recorded in snapshot.launch.files.items())
    wrong = [text for text in compared if text is not None]
    path = os.path.join(snapshot.path, MANIFEST)
    with open(path, "rb") as file:
        text = file.read()
    if text[-_SEAL_SIZE:] != _SEAL % checksum.sum_bytes(text[:-_SEAL_SIZE]):
        wrong.append(f"{path} is damaged: its checksum differs; make the snapshot anew")
    if not wrong:
        note(snapshot.path, snapshot.launch.files)
    return [Mismatch(text, fatal=True) for text in wrong]


def note(directory: str, files: Mapping[str, FileEntry]) -> None:
    """
    Note that the large files of a snapshot are as they should be; where that cannot be noted, they are read again.

    Args:
        directory: The snapshot.
        files: What is recorded of its files.
    """
    with contextlib.suppress(CriuError, OSError):
        with open(os.path.join(directory, LAUNCH), "rb") as file:
            (identity,) = struct.unpack("<I", file.read(_CHECKSUM.stop)[_CHECKSUM])
        boot = (read_small("/proc/sys/kernel/random/boot_id") or b"unknown").decode("ascii")
        total = 0
        for name, recorded in files.items():
            if recorded.is_large:
                total = checksum.sum_bytes(_touched(os.stat(os.path.join(directory, name))), total)
        path = _note_of(directory)
        own = f"{path}.{os.getpid()}"
        with open(own, "w", encoding="ascii") as note:
            note.write(f"{boot} {identity:08x} {total:08x} read\n")
        os.replace(own, path)


def forget(directory: str) -> None:
    """Remove the note of a snapshot that is about to be removed."""
    with contextlib.suppress(CriuError, OSError):
        os.unlink(_note_of(directory))


def _note_of(directory: str) -> str:
    from libcriu_py.linux.runtime_dir import private_directory

    status = os.stat(directory)
    return os.path.join(private_directory(), f"sound-{status.st_dev:x}-{status.st_ino:x}")


def _touched(status: os.stat_result) -> bytes:
    """Return what changes when a file is written to, as `touched` of restore/sums.c."""
    times = (status.st_mtime_ns % 2**64, status.st_ctime_ns % 2**64)
    return struct.pack("=5Q", status.st_dev, status.st_ino, status.st_size, *times)
