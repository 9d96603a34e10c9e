"""Dividing the memory of a snapshot: each large block gets its own file, `memory.img` keeps the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.errors import ImageError, SnapshotError
from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory import check, rewrite
from libcriu_py.memory.blocks import BlockWriter
from libcriu_py.memory.memory import END, FILE_PRIVATE, MM_VMAS, PAGE, PGOFF, SHMID, START, Area, Memory, processes
from libcriu_py.snapshot.manifest import IMAGES, MEMORY, SHARED_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.snapshot.manifest import Snapshot

MIN_BLOCK = 1 << 20
"""
Bytes of the smallest block that gets its own file.

Between two dumps of a program, address randomisation changes nearly every page of heaps and arenas. Arrays and tensors
stay the same, and malloc gives each of them its own block.
"""
MAX_BLOCKS = 48
"""The most blocks of a snapshot; criu gets a descriptor for each (csrc/restore/restore.c)."""
_IS_MMAPPED = 2
"""Flag in the size of a chunk (glibc's malloc/malloc.c)."""


class Division:
    """Divides one snapshot; call the methods in the order in which they are defined."""

    def __init__(self, snapshot: Snapshot, target: str) -> None:
        """
        Choose the blocks.

        Args:
            snapshot: A snapshot of one process, with mapped memory.
            target: The directory of the new snapshot, without images and memory.

        Raises:
            SnapshotError: The snapshot has several processes, which share their blocks already.
            ImageError: The images are not understood.
        """
        pids = processes(snapshot.images)
        if len(pids) != 1:
            message = f"{snapshot.path} has {len(pids)} processes, and blocks of memory are shared for single ones only"
            raise SnapshotError(message)
        self._old = snapshot
        self._target = target
        self._name = f"mm-{pids[0]}.img"
        (self._mm,) = framing.read(os.path.join(snapshot.images, self._name), "mm")
        self._files = framing.read(os.path.join(snapshot.images, framing.FILES_NAME), "files")
        ids = check.ids_of(self._files, snapshot.memory_key or "")
        with Memory(snapshot.images, pids[0]) as memory:
            blocks = [area for area in memory.areas if _is_block(memory, area, ids)]
        largest = sorted(blocks, key=lambda area: area.start - area.end)[:MAX_BLOCKS]
        self.blocks = sorted(largest, key=lambda area: area.start)
        """The areas mapped from `memory.img` that get their own files."""

    def write_memory(self) -> list[str]:
        """Write the files of the blocks, and `memory.img` without them; return the paths of the blocks."""
        directory = os.path.join(self._target, SHARED_DIRECTORY)
        os.mkdir(directory, 0o700)
        old = os.open(os.path.join(self._old.path, MEMORY), os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(old).st_size
            paths = []
            at = 0
            rest = _create(os.path.join(self._target, MEMORY))
            try:
                writer = BlockWriter(rest)
                for area in sorted(self.blocks, key=lambda area: area.message.number(PGOFF)):
                    offset = area.message.number(PGOFF)
                    writer.copy(old, at, at, offset - at)
                    at = offset + area.end - area.start
                writer.copy(old, at, at, size - at)
                writer.flush()
                os.ftruncate(rest, size)
            finally:
                os.close(rest)
            for number, area in enumerate(self.blocks):
                paths.append(os.path.join(directory, str(number)))
                fd = _create(paths[-1])
                try:
                    writer = BlockWriter(fd)
                    writer.copy(old, area.message.number(PGOFF), 0, area.end - area.start)
                    writer.flush()
                finally:
                    os.close(fd)
        finally:
            os.close(old)
        return paths

    def write_images(self, keys: Sequence[str]) -> None:
        """
        Write images that refer to the new files.

        Args:
            keys: The path of each block's file in the images, without the leading slash.
        """
        images = os.path.join(self._target, IMAGES)
        os.mkdir(images, 0o700)
        first = max(rewrite.file_ids(self._files)) + 1
        files = self._files
        places = {}
        for number, (area, key) in enumerate(zip(self.blocks, keys, strict=True), first):
            files = rewrite.add_files(files, [number], key, area.end - area.start)
            places[area.start] = number
        mm = self._mm.copy()
        mm.replace_all(MM_VMAS, [_moved(data, places) for data in self._mm.all_bytes(MM_VMAS)])
        framing.write(os.path.join(images, self._name), "mm", [mm])
        framing.write(os.path.join(images, framing.FILES_NAME), "files", files)
        rewrite.link_rest(self._old.images, images, {self._name, framing.FILES_NAME})

    def check(self, files: dict[str, str]) -> None:
        """
        Compare the memory of the new snapshot on disk with that of the old one.

        Args:
            files: The paths of the new snapshot's mapped files, including `memory.img`, by key.

        Raises:
            ImageError: They differ.
        """
        images = os.path.join(self._target, IMAGES)
        (mm,) = framing.read(os.path.join(images, self._name), "mm")
        listed = framing.read(os.path.join(images, framing.FILES_NAME), "files")
        paths = {number: path for key, path in files.items() for number in check.ids_of(listed, key)}
        before, after = self._mm.copy(), mm.copy()
        areas = list(zip(before.all_bytes(MM_VMAS), after.all_bytes(MM_VMAS), strict=True))
        before.replace_all(MM_VMAS, [])
        after.replace_all(MM_VMAS, [])
        _require(before.fields == after.fields, "the description of the memory")
        kept = [message.fields for message in listed[: len(self._files)]]
        _require(kept == [message.fields for message in self._files], "an open file")
        for old, new in areas:
            self._check_area(Message.parse(old), Message.parse(new), paths)
        check.compare_rest(self._old.images, images, {self._name, framing.FILES_NAME})

    def _check_area(self, old: Message, new: Message, paths: dict[int, str]) -> None:
        known = check.ids_of(self._files, self._old.memory_key or "")
        if old.number(SHMID) not in known or not _is_private_file(old):
            _require(old.fields == new.fields, "an area")
            return
        may_change = {SHMID, PGOFF}
        ours, theirs = ([item for item in message.fields if item[0] not in may_change] for message in (old, new))
        _require(ours == theirs and new.number(SHMID) in paths, "an area")
        one = os.open(os.path.join(self._old.path, MEMORY), os.O_RDONLY | os.O_CLOEXEC)
        other = os.open(paths[new.number(SHMID)], os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = old.number(END) - old.number(START)
            same = check.same_bytes(one, old.number(PGOFF), other, new.number(PGOFF), size)
        finally:
            os.close(one)
            os.close(other)
        _require(same, f"the memory at {old.number(START):#x}")


def _is_private_file(message: Message) -> bool:
    return bool(Area(message).status & FILE_PRIVATE)


def _is_block(memory: Memory, area: Area, ids: set[int]) -> bool:
    """Return whether an area is a large malloc block without its first page, which is never mapped from the file."""
    if not _is_private_file(area.message) or area.message.number(SHMID) not in ids or area.end - area.start < MIN_BLOCK:
        return False
    header = memory.read(area.start - PAGE, 16)
    size = int.from_bytes(header[8:], "little")
    return size % PAGE == _IS_MMAPPED and area.start - PAGE + size >= area.end


def _moved(data: bytes, places: dict[int, int]) -> bytes:
    message = Message.parse(data)
    if message.number(START) in places:
        message.set(SHMID, places[message.number(START)])
        message.set(PGOFF, 0)
    return message.encode()


def _create(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)


def _require(truth: object, difference: str) -> None:
    if not truth:
        message = f"dividing the memory would have changed the snapshot ({difference}); it stays as it is"
        raise ImageError(message)
