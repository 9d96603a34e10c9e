"""
The working set of a snapshot: pages of mapped memory that every copy writes to, and so copies ahead, all at once.

The file `working-set` beside the images has entries of 16 bytes: an address, a number of pages, and whether to replace
each 2 MB with an anonymous huge page (csrc/copy/prefetch.c).
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
"""The least pages of a range: for one, the system call takes longer than the fault it saves (3.4 us against 2.9)."""
MIN_WRITTEN = 256
"""
The least written pages for which a huge page is made.

Making one takes 380 us, as long as 130 faults; if the kernel has no huge page, 1,150 us.
"""
_ENTRY = struct.Struct("=QII")


class Range(NamedTuple):
    """Contiguous pages."""

    start: int
    """The address of the first."""
    pages: int
    huge: bool
    """Whether these are whole huge pages, mostly written to."""

    @property
    def end(self) -> int:
        """The address after it."""
        return self.start + self.pages * PAGE


Written = dict[tuple[int, int], bytearray]
"""By start and end of an area: a byte for each page, 1 if it was written to."""


def common(runs: Iterable[Written]) -> Written:
    """
    Return the pages written to in every run: copying an unneeded page costs what a needed one saves.

    Args:
        runs: What each run wrote to; at least one run.
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
    Choose the ranges to copy ahead.

    Args:
        written: The pages that copies write to.

    Returns:
        The ranges, huge pages first: they are made before anything else.
    """
    found: list[Range] = []
    for (start, _), pages in sorted(written.items()):
        found += _of_area(start, pages)
    return sorted(found, key=lambda item: (not item.huge, item.start))


def _of_area(start: int, pages: bytes | bytearray) -> Iterator[Range]:
    step = HUGE // PAGE
    at = 0
    first = (-start // PAGE) % step  # index of the first page aligned to a huge page
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
    """Yield the ranges of written pages between two indices."""
    while (at := pages.find(1, at, stop)) >= 0:
        end = pages.find(0, at, stop)
        end = stop if end < 0 else end
        if end - at >= MIN_PAGES:
            yield Range(start + at * PAGE, end - at, huge=False)
        at = end


def write(path: str, ranges: Iterable[Range]) -> None:
    """
    Write a working-set file, new and with mode 0400.

    Args:
        path: The path of the file.
        ranges: The ranges to write.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    with os.fdopen(fd, "wb") as file:
        file.write(b"".join(_ENTRY.pack(*item) for item in ranges))


def read(path: str) -> list[Range]:
    """Return the ranges in the working-set file at `path`."""
    with open(path, "rb") as file:
        return [Range(start, pages, bool(huge)) for start, pages, huge in _ENTRY.iter_unpack(file.read())]
