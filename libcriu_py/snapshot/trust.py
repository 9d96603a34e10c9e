"""
Whom the directory of a snapshot, and everything on the way to it, belongs to.

Restoring is executing, so no other ordinary user may be able to write what is restored, or to put something else in
its place. The way is walked by descriptors, without following links: what was checked is what is opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as modes
import time
from typing import TYPE_CHECKING

from libcriu_py.errors import SnapshotError, SnapshotUnsafe
from libcriu_py.linux.ownership import GROUP_OR_OTHERS_WRITE, danger_in

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST = 1 << 28
"""Bytes of a record or manifest; one that is larger is damaged."""
_TRIES = 100


def refuse_unsafe(path: str, status: os.stat_result | None = None) -> None:
    """Raise SnapshotUnsafe for a file or directory, of that status, that another ordinary user could have written."""
    status = status or os.stat(path)
    me = os.geteuid()
    if status.st_uid not in {me, 0}:
        message = (
            f"{path} belongs to uid {status.st_uid}, not to uid {me}: restoring it would run that user's code; "
            "make a snapshot of your own"
        )
        raise SnapshotUnsafe(message)
    if status.st_mode & GROUP_OR_OTHERS_WRITE:
        message = f"{path} can be written by others (mode {status.st_mode & 0o7777:04o}); chmod go-w {path}"
        raise SnapshotUnsafe(message)


def _refuse_unsafe_parent(path: str, status: os.stat_result) -> None:
    """Raise SnapshotUnsafe for a directory in which another ordinary user could replace what leads to a snapshot."""
    danger = danger_in(status)
    if danger is None:
        return
    if danger.startswith("belongs"):
        message = (
            f"{path} {danger}, who could put another snapshot in the place of one in it; "
            "keep snapshots in directories of your own"
        )
    else:
        message = f"{path} {danger}, who could put another snapshot in the place of one in it; chmod go-w {path}"
    raise SnapshotUnsafe(message)


def refuse_way(path: str) -> None:
    """
    Refuse a path, without symbolic links, where another user could put something else in the place of what is there.

    Args:
        path: Where a snapshot is to be made; it need not exist.

    Raises:
        SnapshotUnsafe: There is such a directory on the way to it.
    """
    while path != "/":
        path = os.path.dirname(path)
        _refuse_unsafe_parent(path, os.stat(path))


@contextlib.contextmanager
def opened(directory: str) -> Iterator[int]:
    """
    Open the directory of a snapshot for reading, which is not removed meanwhile when another takes its place.

    Args:
        directory: Its path, without symbolic links.

    Raises:
        SnapshotUnsafe: Another user could have written it, or what leads to it.
        SnapshotError: It is being removed all the time.
        OSError: There is none.
    """
    for _ in range(_TRIES):
        fd = _walk(directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(directory)):
                yield fd
                return
        except BlockingIOError:
            pass
        finally:
            os.close(fd)
        time.sleep(0.001)
    message = f"{directory} is being replaced; try again"
    raise SnapshotError(message)


def _walk(directory: str) -> int:
    """Open a directory by each of those that lead to it, all of which are checked."""
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    names = [name for name in directory.split("/") if name]
    try:
        for number, name in enumerate(names):
            _refuse_unsafe_parent("/" + "/".join(names[:number]), os.fstat(fd))
            kind = os.O_RDONLY if number == len(names) - 1 else os.O_PATH
            inner = os.open(name, kind | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = inner
        refuse_unsafe(directory, os.fstat(fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def read(directory: int, path: str) -> bytes:
    """
    Read a file of an open directory that nobody else could have written.

    Args:
        directory: The descriptor.
        path: The path of the file, of which the last part is used; the rest is for the message.

    Raises:
        SnapshotUnsafe: Another user could have written it.
        OSError: It is not a regular file, too large, or cannot be read.
    """
    # A FIFO in its place must not make us wait.
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with os.fdopen(os.open(os.path.basename(path), flags, dir_fd=directory), "rb") as file:
        status = os.fstat(file.fileno())
        refuse_unsafe(path, status)
        if not modes.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, f"{path} is not a regular file")
        if status.st_size > _LARGEST:
            raise OSError(errno.EFBIG, f"{path} has {status.st_size} bytes")
        return file.read()
