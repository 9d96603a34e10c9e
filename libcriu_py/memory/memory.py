"""
The memory of a dumped process, from CRIU's images.

    mm-PID.img       the virtual memory areas
    pagemap-PID.img  which pages are stored in the pages file, as runs in the order of the file
    pages-N.img      the content of these pages; N is in the pagemap
"""

from __future__ import annotations

import bisect
import mmap
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = 4096
"""CRIU's page size where memory is mapped (x86-64, arm64 with 4 KB pages)."""

# Fields of vma_entry (CRIU's images/vma.proto).
START, END, PGOFF, SHMID, PROT, FLAGS, STATUS, FD, MADV, FDFLAGS = range(1, 11)
# Fields of mm_entry (images/mm.proto).
MM_START_BRK, MM_BRK = 6, 7
MM_EXE_FILE = 12
MM_VMAS = 14
# Fields of pagemap_head and pagemap_entry (images/pagemap.proto).
PAGES_ID = 1
VADDR, COMPAT_NR_PAGES, IN_PARENT, PE_FLAGS, NR_PAGES = range(1, 6)

PE_PARENT, PE_LAZY, PE_PRESENT = 1, 2, 4
"""Flags of a pagemap entry (criu/include/pagemap.h)."""

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_ANONYMOUS = 0x02, 0x20
MAP_GROWSDOWN, MAP_LOCKED, MAP_HUGETLB = 0x100, 0x2000, 0x40000
WIPEONFORK = 1 << 18
"""MADV_WIPEONFORK, as a bit of `Area.madvice`."""

REGULAR = 1 << 0
HEAP = 1 << 5
FILE_PRIVATE = 1 << 6
ANON_PRIVATE = 1 << 9
"""Bits of an area's status (criu/include/image.h, VMA_*)."""

_MM_NAME = re.compile(r"mm-(\d+)\.img")


class Area:
    """A virtual memory area: a `vma_entry`."""

    __slots__ = ("end", "flags", "madvice", "message", "prot", "start", "status")

    def __init__(self, message: Message) -> None:
        """Read the message once; to change it, make a copy."""
        self.message = message
        self.start = message.number(START)
        self.end = message.number(END)
        self.prot = message.number(PROT)
        """PROT_* bits."""
        self.flags = message.number(FLAGS)
        """MAP_* bits."""
        self.status = message.number(STATUS)
        """CRIU's VMA_* bits for the kind of area."""
        self.madvice = message.number(MADV, 0)
        """A bit for each MADV_* in effect."""

    def __repr__(self) -> str:
        """Show the addresses."""
        return f"<Area {self.start:#x}-{self.end:#x}>"


class Run(NamedTuple):
    """Pages that are contiguous both in memory and in the pages file: a `pagemap_entry`."""

    start: int
    end: int
    offset: int
    """Offset of the first page in the pages file, in bytes."""
    message: Message


class Memory:
    """
    The memory of one process of a dump.

    Holds the pages file open; use it as a context manager.
    """

    def __init__(self, directory: str, pid: int) -> None:
        """
        Read the images of a process.

        Args:
            directory: The directory of the images.
            pid: The process.

        Raises:
            ImageError: The images are damaged or not understood.
        """
        self.pid = pid
        self.mm = _only(framing.read(os.path.join(directory, f"mm-{pid}.img"), "mm"))
        self.areas = [Area(Message.parse(data)) for data in self.mm.all_bytes(MM_VMAS)]
        self._areas = [area.start for area in self.areas]
        self.wiped = [(area.start, area.end) for area in self.areas if area.madvice & WIPEONFORK]
        """Ranges of addresses that a forked child finds empty, and so must a copy."""
        self.pagemap_name = f"pagemap-{pid}.img"
        pagemap = framing.read(os.path.join(directory, self.pagemap_name), "pagemap")
        if not pagemap:
            reason = f"{self.pagemap_name} has no head"
            raise ImageError(reason)
        self.head = pagemap[0]
        self.pages_name = f"pages-{self.head.number(PAGES_ID)}.img"
        self.runs = list(_runs(pagemap[1:]))
        self._starts = [run.start for run in self.runs]
        self.pages_path = os.path.join(directory, self.pages_name)
        self.fd = os.open(self.pages_path, os.O_RDONLY | os.O_CLOEXEC)
        size = os.fstat(self.fd).st_size
        stored = self.runs[-1].offset + self.runs[-1].end - self.runs[-1].start if self.runs else 0
        if size != stored:
            os.close(self.fd)
            reason = f"{self.pages_name} has {size} bytes, but {self.pagemap_name} describes {stored}"
            raise ImageError(reason)
        self.view: mmap.mmap | bytes = mmap.mmap(self.fd, size, prot=mmap.PROT_READ) if size else b""
        """The content of the pages file."""

    def __enter__(self) -> Memory:
        """Return the memory itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the pages file."""
        self.close()

    def close(self) -> None:
        """Close the pages file if it is open."""
        if self.fd >= 0:
            if isinstance(self.view, mmap.mmap):
                self.view.close()
            os.close(self.fd)
            self.fd = -1

    @property
    def brk(self) -> tuple[int, int]:
        """The start and end address of the heap."""
        return self.mm.number(MM_START_BRK), self.mm.number(MM_BRK)

    def areas_within(self, start: int, end: int) -> Iterator[Area]:
        """Yield the areas that overlap a range of addresses."""
        place = max(0, bisect.bisect_right(self._areas, start) - 1)
        while place < len(self.areas) and (area := self.areas[place]).start < end:
            place += 1
            if area.end > start:
                yield area

    def runs_within(self, start: int, end: int) -> Iterator[Run]:
        """Yield the runs that overlap a range of addresses."""
        if start >= end:
            return
        place = max(0, bisect.bisect_right(self._starts, start) - 1)
        while place < len(self.runs) and (run := self.runs[place]).start < end:
            place += 1
            if run.end > start:
                yield run

    def pieces(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """
        Yield the stored parts of a range of addresses.

        Yields:
            Start, end and offset in the pages file, by address.
        """
        for run in self.runs_within(start, end):
            low, high = max(start, run.start), min(end, run.end)
            yield low, high, run.offset + low - run.start

    def read(self, start: int, size: int) -> bytes:
        """Return the content of memory, with zeros for pages that are not stored, as in anonymous memory."""
        found = list(self.pieces(start, start + size))
        if len(found) == 1 and found[0][1] - found[0][0] == size:
            return self.view[found[0][2] : found[0][2] + size]
        out = bytearray(size)
        for low, high, offset in found:
            out[low - start : high - start] = self.view[offset : offset + high - low]
        return bytes(out)


def processes(directory: str) -> list[int]:
    """Return the pids of the processes with their own memory in a directory of images."""
    found = (_MM_NAME.fullmatch(name) for name in os.listdir(directory))
    return sorted(int(match[1]) for match in found if match)


def wiped_on_fork(directory: str) -> bool:
    """Return whether the memory that images describe has areas that a forked child would find empty."""
    for pid in processes(directory):
        mm = _only(framing.read(os.path.join(directory, f"mm-{pid}.img"), "mm"))
        if any(Message.parse(data).number(MADV, 0) & WIPEONFORK for data in mm.all_bytes(MM_VMAS)):
            return True
    return False


def _only(messages: list[Message]) -> Message:
    if len(messages) != 1:
        reason = f"an image of a process's memory has {len(messages)} messages instead of one"
        raise ImageError(reason)
    return messages[0]


def _runs(entries: list[Message]) -> Iterator[Run]:
    """
    Read the entries of a pagemap.

    Raises:
        ImageError: Pages are in another dump, or stored in an unknown way.
    """
    offset = 0
    last = 0
    for entry in entries:
        flags = entry.number(PE_FLAGS, PE_PRESENT)
        if entry.number(IN_PARENT, 0) or flags & PE_PARENT:
            reason = "pages of the snapshot are in a parent snapshot (incremental dump)"
            raise ImageError(reason)
        if flags & ~PE_LAZY != PE_PRESENT:
            reason = f"pages are stored in a way that is not known (flags {flags:#x} in a pagemap)"
            raise ImageError(reason)
        start = entry.number(VADDR)
        size = (entry.number(NR_PAGES, 0) or entry.number(COMPAT_NR_PAGES)) * PAGE
        if start < last or start % PAGE or not size:
            reason = "a pagemap is not in order of addresses"
            raise ImageError(reason)
        yield Run(start, start + size, offset, entry)
        offset += size
        last = start + size
