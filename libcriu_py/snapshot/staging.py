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

from libcriu_py.snapshot.manifest import (
    DUMP_LOG,
    IMAGES,
    LAUNCH,
    MANIFEST,
    MEMORY,
    SLOTS,
    SLOTS_DIRECTORY,
    write_records,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from libcriu_py.snapshot.manifest import Snapshot
    from libcriu_py.snapshot.record import Launch

_RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h
_AT_FDCWD = -100


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
        try:
            self._made = self._reserve(path)
        except FileExistsError:
            if not replace:
                message = f"{path} is not empty; choose another directory, or replace it (replace=True, --replace)"
                raise FileExistsError(errno.EEXIST, message) from None
            if not os.path.isdir(self.target):
                message = f"{path} exists and is not a directory; remove it"
                raise FileExistsError(errno.EEXIST, message) from None
            self.path = _name_beside(self.target)
            os.mkdir(self.path, 0o700)
            self._made = True
        self._claim(path)

    def _reserve(self, path: str | os.PathLike[str]) -> bool:
        """Make the directory, or take an empty one; return whether it was made."""
        try:
            os.makedirs(os.path.dirname(self.target), exist_ok=True)
            os.mkdir(self.target, 0o700)
        except FileExistsError:
            if not os.path.isdir(self.target) or os.listdir(self.target):
                raise
            os.chmod(self.target, 0o700)
            return False
        except OSError as error:
            message = f"{path} cannot be made ({error.strerror}); choose a directory in a place where you may write"
            raise OSError(error.errno, message) from None
        return True

    def _claim(self, path: str | os.PathLike[str]) -> None:
        """Make the directory's first entry, which only one of several processes that found it empty can do."""
        try:
            os.mkdir(self.images, 0o700)
        except FileExistsError:
            message = f"another snapshot is being made in {path}; wait for that, or choose another directory"
            raise FileExistsError(errno.EEXIST, message) from None

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
        """Make the slots: empty placeholder files, mode 0600."""
        old = os.umask(0o077)
        try:
            os.mkdir(os.path.join(self.path, SLOTS_DIRECTORY))
            for name in SLOTS:
                os.close(os.open(self.slot(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        finally:
            os.umask(old)

    def publish(self, launch: Launch, manifest: Mapping[str, object]) -> None:
        """
        Write record and manifest, and move the snapshot to its path.

        Args:
            launch: The record, but for its files.
            manifest: The manifest, but for its digests.
        """
        self._tidy()
        write_records(self.path, launch, manifest)
        if self.path != self.target:
            _exchange(self.path, self.target)
            _remove(self.path)
            self.path = self.target

    def _tidy(self) -> None:
        """Move criu's log out of the images, and make what criu wrote private."""
        log = os.path.join(self.images, DUMP_LOG)
        if os.path.exists(log):
            os.rename(log, os.path.join(self.path, DUMP_LOG))
        os.chmod(self.images, 0o700)
        for base, _, names in os.walk(self.path):
            for name in names:
                # Copies map memory.img: writing to it would change running ones.
                os.chmod(os.path.join(base, name), 0o400 if name == MEMORY else 0o600)

    def discard(self) -> None:
        """Remove what was made; leave a directory that existed before, empty."""
        if self._made:
            _remove(self.path)
            return
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if os.path.isdir(path):
                _remove(path)
            else:
                os.unlink(path)


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

    scratch = _name_beside(snapshot.path)
    left_out = shutil.ignore_patterns(LAUNCH, MANIFEST, *without)
    shutil.copytree(snapshot.path, scratch, copy_function=link, ignore=left_out)
    try:
        yield scratch
        _exchange(scratch, snapshot.path)
    finally:
        _remove(scratch)


def link(source: str, target: str) -> None:
    """Link a file under another name, or copy it if the file system has no hard links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        import shutil

        shutil.copy2(source, target, follow_symlinks=False)


def _name_beside(target: str) -> str:
    """Return a new name beside a snapshot, without a pid: pids recur, and a killed process leaves its directory."""
    return f"{target}.new-{os.urandom(6).hex()}"


def _remove(directory: str) -> None:
    import shutil

    shutil.rmtree(directory)


def _exchange(one: str, other: str) -> None:
    """Swap two directories atomically (renameat2(2)), so that the path always names a whole snapshot."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, f"{other} cannot be replaced: {os.strerror(number)}")
