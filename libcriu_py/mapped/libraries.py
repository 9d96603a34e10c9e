"""
The files that the processes of a dump had mapped for execution, and the memory that a loader makes for them.

Behind the data of a library is its bss: the anonymous pages for what a segment of the file is longer in memory than
in the file. Where it ends, no image says, since the kernel makes one area of it and of anonymous memory behind it;
the program headers of the file do (glibc's elf/dl-map-segments.h, Linux's fs/binfmt_elf.c).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.mapped import imagefile
from libcriu_py.mapped.memory import FILE_PRIVATE, PAGE, PROT_EXEC, SHMID
from libcriu_py.mapped.rewrite import FILES_NAME
from libcriu_py.mapped.wire import Message

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from libcriu_py.mapped.memory import Memory

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
    Give the regular files of a dump.

    Args:
        images: its directory.

    Returns:
        The files by the numbers that areas refer to them with.
    """
    found = {}
    for message in imagefile.read(os.path.join(images, FILES_NAME), imagefile.FILES_MAGIC):
        for data in message.all_bytes(3):
            reg = Message.parse(data)
            found[message.number(2)] = File(reg.text(6), reg.number(8, -1) if reg.number(8, -1) >= 0 else None)
    return found


def bss(images: str, memories: Sequence[Memory]) -> dict[int, dict[int, int]]:
    """
    Find how much bss is behind the data of the libraries.

    Args:
        images: directory of a dump.
        memories: of its processes.

    Returns:
        By the number of a file: by where data ends in it, how many bytes of pages follow that in memory. What cannot
        be read, is no ELF file of 64 bits, or is not as long as it was at the dump has none.
    """
    known = files(images)
    numbers = {number for memory in memories for number in executed(memory)}
    return {number: _in_file(known[number]) for number in sorted(numbers) if number in known}


def executed(memory: Memory) -> set[int]:
    """Give the numbers of the files that a process had mapped for execution."""
    return {area.message.number(SHMID) for area in memory.areas if area.status & FILE_PRIVATE and area.prot & PROT_EXEC}


def _in_file(file: File) -> dict[int, int]:
    try:
        with open(file.path, "rb") as opened:
            if os.fstat(opened.fileno()).st_size != file.size:
                return {}
            return _behind(_segments(opened.read(PAGE)))
    except OSError:
        return {}


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Give offset, address, size in the file and size in memory of segments that are loaded and can be written to."""
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
