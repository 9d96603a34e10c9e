"""
The files that the processes of a dump had mapped for execution, and the memory that a loader makes for them.

Behind the data of a library is its bss: the anonymous pages for what a segment of the file is longer in memory than
in the file. Where it ends, no image says, since the kernel makes one area of it and of anonymous memory behind it;
the program headers of the file do (glibc's elf/dl-map-segments.h, Linux's fs/binfmt_elf.c).

Small libraries are put into `memory.img` as a whole. CRIU then opens one file instead of a hundred and makes fewer
areas, and the page cache has their code in large folios.
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
"""Bytes of a library's file that are mapped, up to which it is put into `memory.img` as a whole."""
_LOOKED_FOR = ("libcrypto", "libnss_sss", "libpython", "libtensorflow_framework")
"""
How the names of libraries begin that are found by their paths: by profilers such as py-spy, which look for Python, and
by `resources`, when a copy is dumped in its turn.
"""
_HEADER = struct.Struct("<5s11xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_MAGIC = b"\x7fELF\x02"  # 64 bits
_PT_LOAD, _PF_W = 1, 2


class File(NamedTuple):
    """A regular file that a process had open or mapped."""

    path: str
    """At the dump; " (deleted)" is at its end, or it is another file, where it was gone."""
    size: int | None
    """In bytes, at the dump."""


def files(images: str) -> dict[int, File]:
    """
    Return the regular files of a dump.

    Args:
        images: Its directory.

    Returns:
        The files by the numbers that areas refer to them with.
    """
    found = {}
    for message in framing.read(os.path.join(images, framing.FILES_NAME), "files"):
        for data in message.all_bytes(3):
            reg = Message.parse(data)
            found[message.number(2)] = File(reg.text(6), reg.number(8, -1) if reg.number(8, -1) >= 0 else None)
    return found


def bss(known: Mapping[int, File], memories: Sequence[Memory]) -> dict[int, dict[int, int]]:
    """
    Find how much bss is behind the data of the libraries.

    Args:
        known: The regular files of a dump.
        memories: Of its processes.

    Returns:
        By the number of a file: by where data ends in it, how many bytes of pages follow that in memory. What cannot
        be read, is no ELF file of 64 bits, or is not as long as it was at the dump has none.
    """
    numbers = {number for memory in memories for number in executed(memory)}
    return {number: _in_file(known[number]) for number in sorted(numbers) if number in known}


def executed(memory: Memory) -> set[int]:
    """Return the numbers of the files that a process had mapped for execution."""
    return {area.message.number(SHMID) for area in _file_areas(memory) if area.prot & PROT_EXEC}


def memory_images(known: Mapping[int, File]) -> set[int]:
    """Return the numbers of files that are no libraries but memory of an earlier snapshot, of which this was a copy."""
    return {number for number, file in known.items() if os.path.basename(file.path) == MEMORY}


def small(known: Mapping[int, File], memories: Sequence[Memory], without: Collection[str] = ()) -> set[int]:
    """
    Choose the libraries that are put into `memory.img` as a whole.

    Args:
        known: The regular files of the dump.
        memories: Of its processes.
        without: Paths of files that are to stay what they are.

    Returns:
        Their numbers. Each can be read, and is as long as it was at the dump.
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
        Find where the content of a part of a process's memory comes from.

        Args:
            memory: Of the process.
            area: A private mapping of this file.
            start: Address in it.
            end: Address in it.

        Returns:
            Start, end, offset, and whether that is one in this file and not in the pages file. What is missing, at
            the end of the file's last page, is zeros.
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
    Have a file of a dump open.

    Raises:
        OSError: It cannot be opened, or is not as long as it was.
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
    """Yield the numbers of the program itself, and of files of which much is mapped, or more than they have."""
    yield memory.mm.number(MM_EXE_FILE)
    sizes: dict[int, int] = {}
    for area in _file_areas(memory):
        number = area.message.number(SHMID)
        sizes[number] = sizes.get(number, 0) + area.end - area.start
        if sizes[number] > MAX_WHOLE or _is_beyond(area, known.get(number)):
            yield number


def _is_beyond(area: Area, file: File | None) -> bool:
    """Return whether an area has pages that its file has not."""
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
    """Yield offset, address, size in the file and size in memory of segments that are loaded and can be written to."""
    if len(data) < _HEADER.size or not data.startswith(_MAGIC):
        return
    _, _, _, _, _, place, _, _, _, size, count, _, _, _ = _HEADER.unpack_from(data)
    # Linkers have them right behind the file's header; those that are elsewhere are not worth a search.
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
