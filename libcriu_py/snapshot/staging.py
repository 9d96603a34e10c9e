"""
Staging a snapshot: reserve its directory, fill it, publish it in one step; or replace one that is there.

What only the original needs is imported after the dump: each copy maps every library that was loaded before, in four or
five pieces, some 40 us a library.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from libcriu_py.errors import SnapshotUnsafe
from libcriu_py.snapshot import remains, sums
from libcriu_py.snapshot.manifest import DUMP_LOG, IMAGES, MEMORY, SLOTS, SLOTS_DIRECTORY, Snapshot, write_records
from libcriu_py.snapshot.record import LAUNCH, MANIFEST
from libcriu_py.snapshot.trust import refuse_way

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from libcriu_py.snapshot.record import Launch

_RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h
_AT_FDCWD = -100
_NOT_EMPTY = "{} is not empty; choose another directory, or replace a snapshot that is there (replace=True, --replace)"


class Staging:
    """
    The directory in which a snapshot is made.

    With `replace`, an existing snapshot stays in place until `publish` exchanges the two in one step.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        """
        Reserve the directory, mode 0700.

        Args:
            path: The snapshot's path.
            replace: Whether to replace an existing snapshot.

        Raises:
            FileExistsError: The path exists and must not be replaced, or another snapshot is being made there.
            OSError: The directory cannot be made.
        """
        self.target = os.path.realpath(os.fspath(path))
        self.path = self.target
        """The directory to fill: the target, or one beside it when the target is replaced."""
        remains.sweep(self.target)
        self.made = self._make_directory(path)
        """Whether the directory goes if there is no snapshot."""
        if not os.path.exists(os.path.join(self.target, MANIFEST)):
            self._claim(path)
        elif replace:
            self.path = remains.make_beside(self.target)
            self.made = True
        else:
            raise FileExistsError(errno.EEXIST, _NOT_EMPTY.format(path))

    def _make_directory(self, path: str | os.PathLike[str]) -> bool:
        """Make the directory, unless there is one; tell whether it was made."""
        try:
            os.makedirs(os.path.dirname(self.target), exist_ok=True)
            refuse_way(self.target)
            os.mkdir(self.target, 0o700)
        except FileExistsError:
            if not os.path.isdir(self.target):
                message = f"{path} exists and is not a directory; remove it"
                raise FileExistsError(errno.EEXIST, message) from None
            return False
        except SnapshotUnsafe:
            raise
        except OSError as error:
            message = f"{path} cannot be made ({error.strerror}); choose a directory in a place where you may write"
            raise OSError(error.errno, message) from None
        return True

    def _claim(self, path: str | os.PathLike[str]) -> None:
        """Take a directory that is empty, or was left by a command that was killed."""
        with remains.locked(self.target):
            if remains.is_left(self.target):
                remains.clear(self.target)
            names = os.listdir(self.target)
            if remains.MARKER in names:
                message = f"another snapshot is being made in {path}; wait for that, or choose another directory"
                raise FileExistsError(errno.EEXIST, message)
            if names:
                raise FileExistsError(errno.EEXIST, _NOT_EMPTY.format(path))
            os.chmod(self.target, 0o700)
            remains.mark(self.target)

    @property
    def images(self) -> str:
        """The directory that criu writes to."""
        return os.path.join(self.path, IMAGES)

    @property
    def memory(self) -> str:
        """The path of the file whose memory copies map."""
        return os.path.join(self.path, MEMORY)

    def slot(self, name: str) -> str:
        """Return the path of a slot."""
        return os.path.join(self.path, SLOTS_DIRECTORY, name)

    def populate(self) -> None:
        """Make what criu needs: a directory for its images, and the slots, empty placeholder files of mode 0600."""
        old = os.umask(0o077)
        try:
            os.mkdir(self.images)
            os.mkdir(os.path.join(self.path, SLOTS_DIRECTORY))
            for name in SLOTS:
                os.close(os.open(self.slot(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        finally:
            os.umask(old)

    def clear(self) -> None:
        """Remove what a dump has left that was refused."""
        for name in os.listdir(self.path):
            if name != remains.MARKER:
                os.unlink(os.path.join(self.path, name))

    def publish(self, launch: Launch, manifest: Mapping[str, object]) -> None:
        """
        Write record and manifest, and move the snapshot to its path.

        Args:
            launch: The record, but for its files.
            manifest: The manifest, but for its digests.
        """
        self._tidy()
        write_records(self.path, launch, manifest)
        put_in_place(self.path, self.target)
        self.path = self.target

    def _tidy(self) -> None:
        """Move criu's log out of the images, and make what was written private."""
        log = os.path.join(self.images, DUMP_LOG)
        if os.path.exists(log):
            os.rename(log, os.path.join(self.path, DUMP_LOG))
        for base, _, names in os.walk(self.path):
            for name in names:
                # Copies map memory.img: writing to it would change running ones.
                if name != remains.MARKER:
                    os.chmod(os.path.join(base, name), 0o400 if name == MEMORY else 0o600)

    def discard(self) -> None:
        """Remove what was made; leave a directory that existed before, empty."""
        remains.clear(self.path)
        if self.made:
            os.rmdir(self.path)


@contextlib.contextmanager
def replacing(snapshot: Snapshot, *without: str) -> Iterator[str]:
    """
    Fill a directory beside a snapshot in a `with` block, then put it in the snapshot's place in one step.

    The snapshot stays as it is until then, and for good if the block raises. Running copies keep the files they map.

    Args:
        snapshot: The snapshot to replace.
        without: Files and directories to leave out, besides record and manifest.

    Yields:
        The path of the directory, which has hard links to the snapshot's other files.
    """
    import shutil

    remains.sweep(snapshot.path)
    scratch = remains.make_beside(snapshot.path)
    try:
        left_out = shutil.ignore_patterns(LAUNCH, MANIFEST, remains.MARKER, *without)
        shutil.copytree(snapshot.path, scratch, copy_function=link, ignore=left_out, dirs_exist_ok=True)
        yield scratch
    except BaseException:
        remains.remove(scratch)
        raise
    put_in_place(scratch, snapshot.path)


def link(source: str, target: str) -> None:
    """Link a file under another name, or copy it if the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        import shutil

        shutil.copy2(source, target, follow_symlinks=False)


def put_in_place(made: str, target: str) -> None:
    """
    Publish a directory that is complete, such that there is a whole snapshot at any time, also after a power cut.

    Args:
        made: The directory.
        target: Where it is to be; a snapshot that is there goes when nobody reads it any more.
    """
    sync(made)
    if made != target:
        _exchange(made, target)
    remains.unmark(target)
    _sync_one(os.path.dirname(target))
    if made != target:
        remains.remove(made)  # before the note: the files that both have are touched by that
    snapshot = Snapshot.open(target)
    sums.note(target, snapshot.launch.files)


def sync(directory: str) -> None:
    """Wait until all that is in a directory is on the disk."""
    for base, _, names in os.walk(directory):
        for name in names:
            if name != remains.MARKER:
                _sync_one(os.path.join(base, name))
        _sync_one(base)


def _sync_one(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _exchange(one: str, other: str) -> None:
    """Swap two directories atomically (renameat2(2)), so that the path always names a whole snapshot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, f"{other} cannot be replaced: {os.strerror(number)}")
