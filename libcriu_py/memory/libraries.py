"""
The libraries that the processes of a dump had mapped, and their bss.

The bss follows a library's data: anonymous pages, because the segment is longer in memory than in the file. The images
do not say where it ends, since the kernel merges it with anonymous memory behind it. The program headers of the file do
(glibc's elf/dl-map-segments.h, Linux's fs/binfmt_elf.c).

Small libraries go into `memory.img` as a whole. CRIU then opens one file instead of a hundred and makes fewer areas,
and the page cache has their code in large folios.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory.memory import FILE_PRIVATE, MM_EXE_FILE, PAGE, PGOFF, PROT_EXEC, SHMID
from libcriu_py.snapshot.manifest import MEMORY

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from libcriu_py.memory.memory import Area, Memory

MAX_WHOLE = 8 << 20
"""The most mapped bytes of a library that goes into `memory.img` as a whole."""
_LOOKED_FOR = ("libcrypto", "libnss_sss", "libpython", "libtensorflow_framework")
"""
Prefixes of the names of libraries that must keep their paths: profilers such as py-spy look for that of Python, and
`resources` for the others, when a copy is dumped again.
"""
_HEADER = struct.Struct("<5s11xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_MAGIC = b"\x7fELF\x02"  # 64 bits
_PT_LOAD, _PF_W = 1, 2


class File(NamedTuple):
    """A regular file that a process had open or mapped at the dump."""

    path: str
    """Its path then, with " (deleted)" at the end, or of another file now, if it was deleted."""
    size: int | None
    """Its size then, in bytes; None if the images do not have it."""


def files(images: str) -> dict[int, File]:
    """
    Return the regular files of a dump by id.

    Args:
        images: The directory of the images.
    """
    found = {}
    for message in framing.read(os.path.join(images, framing.FILES_NAME), "files"):
        for data in message.all_bytes(3):
            reg = Message.parse(data)
            found[message.number(2)] = File(reg.text(6), reg.number(8, -1) if reg.number(8, -1) >= 0 else None)
    return found


def bss(known: Mapping[int, File], memories: Sequence[Memory]) -> dict[int, dict[int, int]]:
    """
    Return the size of the bss behind the data segments of the libraries.

    Args:
        known: The regular files of a dump, by id.
        memories: The memories of its processes.

    Returns:
        By file id, and by the offset where a data segment ends in the file: bytes of bss, in whole pages. Files that
        cannot be read, are not 64-bit ELF, or have another size than at the dump have none.
    """
    numbers = {number for memory in memories for number in executed(memory)}
    return {number: _in_file(known[number]) for number in sorted(numbers) if number in known}


def executed(memory: Memory) -> set[int]:
    """Return the ids of the files that a process had mapped for execution."""
    return {area.message.number(SHMID) for area in _file_areas(memory) if area.prot & PROT_EXEC}


def memory_images(known: Mapping[int, File]) -> set[int]:
    """Return the ids of `memory.img` files: those of an earlier snapshot, whose copy was dumped."""
    return {number for number, file in known.items() if os.path.basename(file.path) == MEMORY}


def small(known: Mapping[int, File], memories: Sequence[Memory], without: Collection[str] = ()) -> set[int]:
    """
    Return the ids of the libraries that go into `memory.img` as a whole.

    Each can be read, and has the same size as at the dump.

    Args:
        known: The regular files of the dump, by id.
        memories: The memories of its processes.
        without: Paths of files to leave out.
    """
    numbers = {number for memory in memories for number in executed(memory)}
    unfit = {number for memory in memories for number in _unfit(memory, known)} | memory_images(known)
    return {number for number in numbers - unfit if _may_be_moved(known[number], without)}


class Library(NamedTuple):
    """The file of a library, open for reading."""

    fd: int
    size: int

    def content(self, memory: Memory, area: Area, start: int, end: int) -> Iterator[tuple[int, int, int, bool]]:
        """
        Yield where the content of a part of an area comes from.

        Args:
            memory: The memory of the process.
            area: A private mapping of this file.
            start: The first address.
            end: The address after the last.

        Yields:
            Start, end, offset, and whether the offset is in this file, else in the pages file. The rest of the file's
            last page is zeros and left out.
        """
        at = start
        shift = area.message.number(PGOFF) - area.start
        for low, high, offset in [*memory.pieces(start, end), (end, end, 0)]:
            here = min(low, self.size - shift)
            if at < here:
                yield at, here, at + shift, True
            if low < high:
                yield low, high, offset, False
            at = high


@contextlib.contextmanager
def opened(file: File) -> Iterator[Library]:
    """
    Open a file of a dump for the block.

    Raises:
        OSError: It cannot be opened, or its size has changed.
    """
    fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        if size != file.size:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), file.path)
        yield Library(fd, size)
    finally:
        os.close(fd)


def _file_areas(memory: Memory) -> Iterator[Area]:
    return (area for area in memory.areas if area.status & FILE_PRIVATE)


def _unfit(memory: Memory, known: Mapping[int, File]) -> Iterator[int]:
    """Yield the ids of the executable, and of files that are mapped beyond `MAX_WHOLE` or beyond their end."""
    yield memory.mm.number(MM_EXE_FILE)
    sizes: dict[int, int] = {}
    for area in _file_areas(memory):
        number = area.message.number(SHMID)
        sizes[number] = sizes.get(number, 0) + area.end - area.start
        if sizes[number] > MAX_WHOLE or _is_beyond(area, known.get(number)):
            yield number


def _is_beyond(area: Area, file: File | None) -> bool:
    """Return whether an area maps pages beyond the end of its file."""
    return file is None or file.size is None or area.message.number(PGOFF) + area.end - area.start > _up(file.size)


def _may_be_moved(file: File, without: Collection[str]) -> bool:
    if file.path in without or os.path.basename(file.path).startswith(_LOOKED_FOR):
        return False
    try:
        with opened(file) as library:
            return os.pread(library.fd, len(_MAGIC), 0) == _MAGIC
    except OSError:
        return False


def _in_file(file: File) -> dict[int, int]:
    try:
        with opened(file) as library:
            return _behind(_segments(os.pread(library.fd, PAGE, 0)))
    except OSError:
        return {}


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield offset, address, size in the file and size in memory of writable loaded segments."""
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        return
    _, _, _, _, _, place, _, _, _, size, count, _, _, _ = _HEADER.unpack_from(data)
    # Linkers put them right after the file header; elsewhere they are not worth a search.
    if size != _SEGMENT.size or place + size * count > len(data):
        return
    for at in range(place, place + size * count, size):
        kind, flags, offset, address, _, in_file, in_memory, _ = _SEGMENT.unpack_from(data, at)
        if kind == _PT_LOAD and flags & _PF_W:
            yield offset, address, in_file, in_memory


def _behind(segments: Iterable[tuple[int, int, int, int]]) -> dict[int, int]:
    found: dict[int, int] = {}
    for offset, address, in_file, in_memory in segments:
        first, end = _up(address + in_file), _up(address + in_memory)
        if in_file and first < end and offset % PAGE == address % PAGE:
            place = _up(offset + in_file)
            found[place] = min(end - first, found.get(place, end))
    return found


def _up(number: int) -> int:
    return -(-number // PAGE) * PAGE
