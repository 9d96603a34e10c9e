"""
What commands that were killed have left, and who is reading a snapshot.

While a directory is being made it holds a symbolic link that points nowhere: its text says who makes it. A link is
made in one step, text included, and only once, so it is the claim to the directory as well. Readers of a snapshot hold
a shared lock on its directory; whoever removes or clears one holds an exclusive lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat as modes
import time
from typing import TYPE_CHECKING

from libcriu_py.linux.files import read_small, stat
from libcriu_py.settings import variable
from libcriu_py.snapshot import sums

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = ".making"
_COMPLETE = "manifest.json"
"""What a snapshot has when all else is there."""
_BESIDE = ".new-"
_RANDOM = 12
"""Hexadecimal digits behind that."""
_STALE = 3600.0
"""Seconds without a change after which a maker that cannot be seen from here is taken for dead."""
_PATIENCE = 5.0
"""Seconds that the removal of a replaced snapshot waits for its readers; a restore has read it in less than one."""


def maker() -> str:
    """Return what names this process as the maker of a directory."""
    return f"{_boot()}:{_pid_namespace('self')}:{os.getpid()}:{stat()[19]}"


def mark(directory: str) -> None:
    """
    Claim a directory for this process, or for the command that has put it into a pid namespace and outlives it.

    Raises:
        FileExistsError: Another process has claimed it.
    """
    os.symlink(variable("LIBCRIU_PY_MAKER") or maker(), os.path.join(directory, MARKER))


def unmark(directory: str) -> None:
    """Withdraw the claim to a directory."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(os.path.join(directory, MARKER))


def is_left(directory: str) -> bool:
    """Return whether a directory is one that this user's command was making when it was killed."""
    try:
        status = os.lstat(directory)
        maker = os.readlink(os.path.join(directory, MARKER))
    except OSError:
        return False
    is_own = modes.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_own and not os.path.exists(os.path.join(directory, _COMPLETE)) and not _lives(maker, directory)


def clear_left(directory: str) -> None:
    """Empty a directory that a command was making when it was killed; leave any other alone."""
    with locked(directory):
        if is_left(directory):
            clear(directory)


def sweep(target: str) -> None:
    """Remove the directories beside a target that commands which were killed have left, unless somebody reads them."""
    parent, base = os.path.split(target)
    with contextlib.suppress(OSError):  # there is no such directory yet, or it belongs to others
        for name in os.listdir(parent):
            path = os.path.join(parent, name)
            is_ours = name.startswith(f"{base}{_BESIDE}") and len(name) == len(f"{base}{_BESIDE}") + _RANDOM
            if is_ours and _is_remnant(path):
                remove(path, patience=0)


def make_beside(target: str) -> str:
    """Make a directory, mode 0700, for what is to take the place of a snapshot, and claim it."""
    # No pid is in its name: in pid namespaces the same ones come again.
    path = f"{target}{_BESIDE}{os.urandom(_RANDOM // 2).hex()}"
    os.mkdir(path, 0o700)
    mark(path)
    return path


def unfinished(target: str) -> list[str]:
    """Return the files of a snapshot that is being made."""
    directory, base = os.path.split(target)
    names = [name for name in os.listdir(directory) if name == base or name.startswith(f"{base}{_BESIDE}")]
    places = [os.path.join(directory, name) for name in names]
    new = [place for place in places if not os.path.exists(os.path.join(place, _COMPLETE))]
    return [os.path.join(path, name) for place in new for path, _, names in os.walk(place) for name in names]


def _is_remnant(path: str) -> bool:
    """Return whether a directory beside a target is a new one whose maker is dead, or an old one that was replaced."""
    status = os.lstat(path)
    if not modes.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return False
    try:
        return not _lives(os.readlink(os.path.join(path, MARKER)), path)
    except FileNotFoundError:
        return os.path.exists(os.path.join(path, _COMPLETE)) or (not os.listdir(path) and _is_stale(path))


def _lives(maker: str, directory: str) -> bool:
    boot, _, rest = maker.partition(":")
    namespace, _, process = rest.partition(":")
    pid, _, start = process.partition(":")
    if boot != _boot():
        return False
    if namespace == _pid_namespace("self"):
        try:
            fields = stat(pid)
        except OSError:
            return False
        return fields[19] == start and fields[0] not in "ZX"
    # Of another container, which may share the directory but not the pids.
    return any(_pid_namespace(name) == namespace for name in os.listdir("/proc") if name.isdigit()) or not _is_stale(
        directory
    )


def _is_stale(directory: str) -> bool:
    newest = max(os.stat(base).st_mtime for base, _, _ in os.walk(directory))
    return newest < time.time() - _STALE


def _boot() -> str:
    return (read_small("/proc/sys/kernel/random/boot_id") or b"unknown").decode("ascii")


def _pid_namespace(pid: str) -> str:
    try:
        return str(os.stat(f"/proc/{pid}/ns/pid").st_ino)
    except OSError:
        return "hidden"


@contextlib.contextmanager
def locked(directory: str) -> Iterator[None]:
    """Keep others from claiming, clearing and removing a directory."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def clear(directory: str) -> None:
    """Remove all that is in a directory, the claim last: what is left at any time can be recognised."""
    import shutil  # loads libraries, which would be in each image

    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name == MARKER:
            continue
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    unmark(directory)


def remove(directory: str, *, patience: float = _PATIENCE) -> None:
    """
    Remove a directory when nobody reads it any more; one that is still read after a while is left to a later command.

    Args:
        directory: One that is being made, or that another has replaced.
        patience: Seconds to wait for its readers.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _alone(fd, time.monotonic() + patience):
            with contextlib.suppress(FileExistsError):
                mark(directory)
            sums.forget(directory)
            clear(directory)
            os.rmdir(directory)
        else:
            unmark(directory)
    except FileNotFoundError:
        return  # another command has removed it meanwhile
    finally:
        os.close(fd)


def _alone(fd: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        else:
            return True
