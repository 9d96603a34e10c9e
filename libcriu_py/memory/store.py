"""
A store keeps each large block of memory that several snapshots have in common once.

    store/<sha256>          a block, mode 0400, named by its content
    snap/memory/<sha256>    a hard link to it: the snapshot is complete without the store
    store/.libcriu_py-store what tells it from other directories
    store/.lock             held while blocks are added or removed

Copies of these snapshots map the same file and so share it in the page cache. A block that no snapshot has any more has
a link count of 1.
"""

from __future__ import annotations

import contextlib
import fcntl
import filecmp
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import SnapshotError
from libcriu_py.memory.division import Division
from libcriu_py.snapshot.manifest import (
    IMAGES,
    MEMORY,
    SHARED_DIRECTORY,
    Snapshot,
    refuse_damaged,
    refuse_native,
    sha256,
    write_records,
)
from libcriu_py.snapshot.record import MemoryFile
from libcriu_py.snapshot.staging import replacing
from libcriu_py.snapshot.trust import refuse_unsafe

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKER = ".libcriu_py-store"
"""The file by which a store is told from any other directory, whose files nobody must remove."""
_NAME = re.compile(r"[0-9a-f]{64}")


class Block(NamedTuple):
    """A block in a store."""

    name: str
    size: int
    snapshots: int
    """How many snapshots have it."""


class Shared(NamedTuple):
    """The result of `share`."""

    bytes: int
    """Bytes of the snapshot that are in blocks of the store."""
    known: int
    """How many of these the store had already."""


class Store:
    """
    A directory of memory blocks.

    Thread safety: processes and threads may use it at the same time.
    """

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """
        Open a store.

        Args:
            path: The directory.
            create: Whether to make it, mode 0700, if it is missing.

        Raises:
            SnapshotError: It is a directory that is no store.
            SnapshotUnsafe: Another user could have written it.
            OSError: It does not exist.
        """
        self.path = os.path.realpath(path)
        if create:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
        refuse_unsafe(self.path)
        marker = os.path.join(self.path, MARKER)
        if create and not os.listdir(self.path):
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if not os.path.lexists(marker):
            message = (
                f"{self.path} is no store: it has no {MARKER}; name a directory that is empty or does not exist; "
                "if it is a store of an older version, make that file"
            )
            raise SnapshotError(message)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from adding and removing blocks during the block."""
        fd = os.open(os.path.join(self.path, ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def blocks(self) -> list[Block]:
        """Return all blocks, by name."""
        found = []
        for name in sorted(filter(_NAME.fullmatch, os.listdir(self.path))):
            status = os.stat(os.path.join(self.path, name))
            found.append(Block(name, status.st_size, status.st_nlink - 1))
        return found

    def prune(self) -> list[Block]:
        """Remove the blocks that no snapshot has, and return them."""
        with self.lock():
            unused = [block for block in self.blocks() if not block.snapshots]
            for block in unused:
                os.unlink(os.path.join(self.path, block.name))
        return unused

    def add(self, file: str) -> tuple[str, bool]:
        """
        Add a file to the store, and make its path a hard link to the block.

        Args:
            file: Its path, on the file system of the store; mode 0400.

        Returns:
            The name of the block, and whether the store had it already.

        Raises:
            SnapshotError: The store is on another file system, or its block is damaged.
        """
        name = sha256(file)
        there = os.path.join(self.path, name)
        if os.path.exists(there):
            refuse_unsafe(there)
            if not filecmp.cmp(file, there, shallow=False):
                message = f"{there} is damaged: its content has another digest; remove it"
                raise SnapshotError(message)
            os.unlink(file)
            os.link(there, file)
            return name, True
        try:
            os.link(file, there)
        except OSError as error:
            message = f"{self.path} cannot share files with the snapshot ({error.strerror}); choose a store beside it"
            raise SnapshotError(message) from None
        return name, False


def share(path: str | os.PathLike[str], store: Store) -> Shared:
    """
    Move the large memory blocks of a snapshot to a store; the snapshot is replaced in one step.

    Args:
        path: The snapshot, with mapped memory.
        store: The store.

    Returns:
        How much of the snapshot is in the store now.

    Raises:
        SnapshotError: The snapshot has no mapped memory, is in a store already, or is damaged.
        ImageError: Its images are not understood.
        OSError: The new snapshot cannot be written.
    """
    snapshot = Snapshot.open(path)
    refuse_native(snapshot, "a store shares memory between snapshots of criu only (--engine criu)")
    if snapshot.memory_key is None:
        message = f"the copies of {path} map no memory: there is nothing to share; try: libcriu-py optimize {path}"
        raise SnapshotError(message)
    if len(snapshot.memory_files) > 1:
        message = f"{path} is in a store already; make the snapshot anew to change that"
        raise SnapshotError(message)
    refuse_damaged(snapshot)
    with replacing(snapshot, MEMORY, IMAGES) as scratch, store.lock():
        return _divide(snapshot, scratch, store)


def _divide(snapshot: Snapshot, scratch: str, store: Store) -> Shared:
    division = Division(snapshot, scratch)
    keys = []
    entries: dict[str, MemoryFile] = {}
    known = 0
    for path in division.write_memory():
        name, was_there = store.add(path)
        size = os.stat(path).st_size
        file = os.path.join(SHARED_DIRECTORY, name)
        keys.append(os.path.join(snapshot.path, file)[1:])
        if keys[-1] in entries:  # equal to an earlier block
            os.unlink(path)
        else:
            os.rename(path, os.path.join(scratch, file))
        entries[keys[-1]] = MemoryFile(file, keys[-1], size)
        known += size if was_there else 0
    division.write_images(keys)
    memory = (snapshot.launch.memory_files[0], *entries.values())
    division.check({part.key: os.path.join(scratch, part.file) for part in memory})
    write_records(scratch, snapshot.launch._replace(memory_files=memory), snapshot.manifest)
    return Shared(sum(area.end - area.start for area in division.blocks), known)
