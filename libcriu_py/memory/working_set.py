"""
The working set of a snapshot: the pages of mapped memory that its copies write to, so that these are copied at once.

A file beside the images, `working-set`, of entries of 16 bytes: an address, a number of pages, and whether an
anonymous huge page is to take the place of each 2 MB (csrc/copy/prefetch.c).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.memory.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HUGE = 2 << 20
MIN_PAGES = 2
"""Of a range; for a single page a system call takes longer than the fault that it spares (3.4 us against 2.9)."""
MIN_WRITTEN = 256
"""
Pages of a huge page that must be written to for it to be worth its making, where there can be none too.

All of one takes 380 us, the time in which 130 pages are copied by faults; without huge pages it is 1,150 us.
"""
_ENTRY = struct.Struct("=QII")


class Range(NamedTuple):
    """Pages that follow each other."""

    start: int
    """Address."""
    pages: int
    huge: bool
    """Whether it is of whole huge pages, most of which is written to."""

    @property
    def end(self) -> int:
        """The address after it."""
        return self.start + self.pages * PAGE


Written = dict[tuple[int, int], bytearray]
"""By begin and end of an area: a byte for each page, 1 where it was written to."""


def common(runs: Iterable[Written]) -> Written:
    """
    Return what was written to in every run: to copy a page that is not needed costs what a needed one saves.

    Args:
        runs: One or more.
    """
    first, *others = runs
    found = {area: bytearray(pages) for area, pages in first.items()}
    for area, pages in found.items():
        for other in others:
            ours, theirs = (int.from_bytes(data, "little") for data in (pages, other.get(area, b"")))
            pages[:] = (ours & theirs).to_bytes(len(pages), "little")
    return found


def choose(written: Mapping[tuple[int, int], bytes | bytearray]) -> list[Range]:
    """
    Choose what is to be copied ahead.

    Args:
        written: The pages that copies write to.

    Returns:
        Ranges, those of huge pages first: they are made before anything else.
    """
    found: list[Range] = []
    for (start, _), pages in sorted(written.items()):
        found += _of_area(start, pages)
    return sorted(found, key=lambda item: (not item.huge, item.start))


def _of_area(start: int, pages: bytes | bytearray) -> Iterator[Range]:
    step = HUGE // PAGE
    at = 0
    first = (-start // PAGE) % step  # the first page that begins a huge one
    while at < len(pages):
        if (at - first) % step == 0 and pages.count(1, at, at + step) >= MIN_WRITTEN and at + step <= len(pages):
            stop = at + step
            while stop + step <= len(pages) and pages.count(1, stop, stop + step) >= MIN_WRITTEN:
                stop += step
            yield Range(start + at * PAGE, stop - at, huge=True)
            at = stop
            continue
        stop = min(len(pages), at + step - (at - first) % step)
        yield from _small(start, pages, at, stop)
        at = stop


def _small(start: int, pages: bytes | bytearray, at: int, stop: int) -> Iterator[Range]:
    """Yield the ranges of written pages between two places."""
    while (at := pages.find(1, at, stop)) >= 0:
        end = pages.find(0, at, stop)
        end = stop if end < 0 else end
        if end - at >= MIN_PAGES:
            yield Range(start + at * PAGE, end - at, huge=False)
        at = end


def write(path: str, ranges: Iterable[Range]) -> None:
    """
    Write the file, as a new one of mode 0400.

    Args:
        path: Of the file.
        ranges: What it is to hold.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(b"".join(_ENTRY.pack(*item) for item in ranges))


def read(path: str) -> list[Range]:
    """
    Read the file.

    Args:
        path: Of the file.
    """
    with open(path, "rb") as file:
        return [Range(start, pages, bool(huge)) for start, pages, huge in _ENTRY.iter_unpack(file.read())]
