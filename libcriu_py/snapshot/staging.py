"""
A snapshot in the making: its directory, reserved at the beginning and published at the end.

What only the original needs is imported after the dump: each library that is loaded before it is mapped again by each
copy, in four or five pieces, some 40 us a library.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from libcriu_py.snapshot.manifest import DUMP_LOG, IMAGES, MEMORY, SLOTS, SLOTS_DIRECTORY, write_records

if TYPE_CHECKING:
    from collections.abc import Mapping

    from libcriu_py.snapshot.record import Launch

_RENAME_EXCHANGE = 2  # include/uapi/linux/fs.h
_AT_FDCWD = -100


class Draft:
    """
    The directory of a snapshot that is being made.

    With `replace`, an existing snapshot stays as it is until the new one takes its place in one step.
    """

    def __init__(self, path: str | os.PathLike[str], *, replace: bool) -> None:
        """
        Reserve the directory, mode 0700.

        Args:
            path: Where the snapshot is to be.
            replace: Whether one that is there may be replaced.

        Raises:
            FileExistsError: Something is there already, or is being made there.
            OSError: It cannot be made.
        """
        self.target = os.path.realpath(os.fspath(path))
        self.path = self.target
        """Where it is made; another directory beside the target when that one is to be replaced."""
        try:
            self._made = self._reserve(path)
        except FileExistsError:
            if not replace:
                message = f"{path} is not empty; choose another directory, or replace it (replace=True, --replace)"
                raise FileExistsError(errno.EEXIST, message) from None
            if not os.path.isdir(self.target):
                message = f"{path} exists and is not a directory; remove it"
                raise FileExistsError(errno.EEXIST, message) from None
            self.path = name_beside(self.target)
            os.mkdir(self.path, 0o700)
            self._made = True
        self._claim(path)

    def _reserve(self, path: str | os.PathLike[str]) -> bool:
        """Make the directory, or take an empty one; tell whether it was made."""
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
        """Make the directory's first entry: of several who found it empty, one can."""
        try:
            os.mkdir(self.images, 0o700)
        except FileExistsError:
            message = f"another snapshot is being made in {path}; wait for that, or choose another directory"
            raise FileExistsError(errno.EEXIST, message) from None

    @property
    def images(self) -> str:
        """Where criu writes."""
        return os.path.join(self.path, IMAGES)

    @property
    def memory(self) -> str:
        """Where the memory is that copies map."""
        return os.path.join(self.path, MEMORY)

    def slot(self, name: str) -> str:
        """Return the path of a slot."""
        return os.path.join(self.path, SLOTS_DIRECTORY, name)

    def populate(self) -> None:
        """Make the slots."""
        old = os.umask(0o077)
        try:
            os.mkdir(os.path.join(self.path, SLOTS_DIRECTORY))
            for name in SLOTS:
                os.close(os.open(self.slot(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        finally:
            os.umask(old)

    def publish(self, launch: Launch, manifest: Mapping[str, object]) -> None:
        """
        Write record and manifest, and put the snapshot where it is to be.

        Args:
            launch: All but the files.
            manifest: All but their digests.
        """
        self._tidy()
        write_records(self.path, launch, manifest)
        if self.path != self.target:
            exchange(self.path, self.target)
            _remove(self.path)
            self.path = self.target

    def _tidy(self) -> None:
        """Move criu's log out of the images, and keep what it wrote to ourselves."""
        log = os.path.join(self.images, DUMP_LOG)
        if os.path.exists(log):
            os.rename(log, os.path.join(self.path, DUMP_LOG))
        os.chmod(self.images, 0o700)
        for base, _, names in os.walk(self.path):
            for name in names:
                # Restored copies have memory.img mapped: a change would change them.
                os.chmod(os.path.join(base, name), 0o400 if name == MEMORY else 0o600)

    def discard(self) -> None:
        """Remove what was made; a directory that was there before stays, empty as it was."""
        if self._made:
            _remove(self.path)
            return
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if os.path.isdir(path):
                _remove(path)
            else:
                os.unlink(path)


def name_beside(target: str) -> str:
    """
    Return a name for what is to take the place of a snapshot.

    No pid is in it: in pid namespaces the same ones come again, and one that was killed has left its directory.
    """
    return f"{target}.new-{os.urandom(6).hex()}"


def _remove(directory: str) -> None:
    import shutil

    shutil.rmtree(directory)


def exchange(one: str, other: str) -> None:
    """Swap two directories in one step (renameat2), so that there is a whole snapshot at any time."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, f"{other} cannot be replaced: {os.strerror(number)}")
