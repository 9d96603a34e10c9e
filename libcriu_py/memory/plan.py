"""Planning which memory is mapped from where in `memory.img`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.memory.memory import PAGE, PGOFF, SHMID
from libcriu_py.memory.owners import LIBRARY_BSS, LIBRARY_DATA, LIBRARY_FILE, PYMALLOC, Owned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from libcriu_py.memory.memory import Memory

MIN_PAGES = 8
"""The least pages of a segment; copying fewer is as fast as mapping them."""
MAX_HOLE = 64
"""The most pages without content in a row in a segment; longer holes split it, to keep zero pages anonymous."""
MAX_SEGMENTS = 20_000
"""The most segments of a process; Linux allows 65530 areas (vm.max_map_count)."""
_HUGE = 2 << 20
_ALIGNED = 16 << 20  # least bytes of a segment to align for huge pages, which can leave a hole of almost 2 MB before it
_COMPARED = 1 << 20  # bytes


class Segment(NamedTuple):
    """A range of addresses to map from `memory.img`."""

    start: int
    end: int
    offset: int
    """The offset in the file."""
    owner: str
    shared: bool = False
    """Whether another process's segment has this content already."""
    differing: tuple[tuple[int, int], ...] = ()
    """Ranges of a shared segment whose content stays in the process's own pages file."""


class Layout:
    """
    Places segments in `memory.img`, from its start.

    For huge pages, offset and address of large segments agree in the last 21 bits.
    """

    def __init__(self) -> None:
        """Start with an empty file."""
        self.size = 0
        self._placed: list[tuple[Memory, Segment]] = []

    def place(self, memory: Memory, ranges: Iterable[Owned]) -> list[Segment]:
        """
        Place the segments of one process, and return them by address.

        Args:
            memory: The memory of the process, which must stay open while others are placed.
            ranges: The ranges from `cut`.
        """
        segments = []
        for start, end, owner in ranges:
            segment = self._share(memory, start, end, owner)
            if segment is None:
                if end - start >= _ALIGNED:
                    self.size += (start - self.size) % _HUGE
                segment = Segment(start, end, self.size, owner)
                self.size += end - start
                self._placed.append((memory, segment))
            segments.append(segment)
        return segments

    def _share(self, memory: Memory, start: int, end: int, owner: str) -> Segment | None:
        """Share the segment of a process with much the same content at these addresses, as after a fork."""
        for other, placed in self._placed:
            if other is memory or not (placed.start <= start and end <= placed.end):
                continue
            if owner == LIBRARY_FILE and not _is_same_part(memory, other, start, end):
                continue
            differing = tuple(_differences(memory, other, start, end))
            # Differing pages go into the pages file, as zeros where not stored: wrong for a library.
            if sum(high - low for low, high in differing) * 2 > (0 if owner == LIBRARY_FILE else end - start):
                continue
            return Segment(start, end, placed.offset + start - placed.start, owner, shared=True, differing=differing)
        return None


def cut(memory: Memory, owned: Iterable[Owned], *, min_pages: int = MIN_PAGES) -> list[Owned]:
    """
    Cut owned ranges to the stored parts that are worth a mapping.

    Args:
        memory: The memory of the process.
        owned: The ranges from `owners.recognise`.
        min_pages: The least length. Shorter ones count if they are a whole area, which is a mapping anyway, or bss
            behind mapped data of a library, with which it is joined (`rewrite`).

    Returns:
        Ranges within single areas; the longest `MAX_SEGMENTS` if there are more.
    """
    whole = {(area.start, area.end) for area in memory.areas}
    found: list[Owned] = []
    for one in _joined(owned):
        for piece in _cut(memory, one):
            long = piece.end - piece.start >= min_pages * PAGE or (piece.start, piece.end) in whole
            if long or (found and _continues(memory, found[-1], piece)):
                found.append(piece)
    longest = sorted(found, key=lambda piece: piece.start - piece.end)[:MAX_SEGMENTS]
    return sorted(longest)


def _joined(owned: Iterable[Owned]) -> Iterator[Owned]:
    """Join adjacent arenas of pymalloc, each of which would be an area, and its rest another."""
    before: Owned | None = None
    for one in owned:
        if before is not None and before.end == one.start and before.owner == one.owner == PYMALLOC:
            before = before._replace(end=one.end)
            continue
        if before is not None:
            yield before
        before = one
    if before is not None:
        yield before


def _cut(memory: Memory, whole: Owned) -> Iterator[Owned]:
    if whole.owner == LIBRARY_FILE:
        yield whole
        return
    # Unwritten pages of a library's data come from its file.
    longest_hole = 0 if whole.owner == LIBRARY_DATA else MAX_HOLE * PAGE
    for area in memory.areas_within(whole.start, whole.end):
        low, high = max(whole.start, area.start), min(whole.end, area.end)
        begin = stop = low
        for start, end, _ in memory.pieces(low, high):
            if start - stop > longest_hole:
                if begin < stop:
                    yield Owned(begin, stop, whole.owner)
                begin = start
            stop = end
        if begin < stop:
            # A short rest at the end would be another area.
            yield Owned(begin, high if high - stop <= longest_hole else stop, whole.owner)


def _continues(memory: Memory, data: Owned, bss: Owned) -> bool:
    """Return whether bss directly follows mapped data of the library, with the same protection."""
    if data.owner not in {LIBRARY_DATA, LIBRARY_FILE} or bss.owner != LIBRARY_BSS or data.end != bss.start:
        return False
    one, other = memory.areas_within(data.end - PAGE, data.end + PAGE)
    return one.prot == other.prot


def _is_same_part(one: Memory, other: Memory, start: int, end: int) -> bool:
    """Return whether two processes map the same part of a library at an address, and have the same pages stored."""
    (ours,), (theirs,) = one.areas_within(start, end), other.areas_within(start, end)
    same_file = ours.message.number(SHMID) == theirs.message.number(SHMID)
    same_place = ours.message.number(PGOFF) - ours.start == theirs.message.number(PGOFF) - theirs.start
    return same_file and same_place and _stored(one, start, end) == _stored(other, start, end)


def _stored(memory: Memory, start: int, end: int) -> list[int]:
    return [page for low, high, _ in memory.pieces(start, end) for page in range(low, high, PAGE)]


def _differences(one: Memory, other: Memory, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of pages that differ between two processes."""
    low = high = start
    for at in range(start, end, _COMPARED):
        size = min(_COMPARED, end - at)
        ours, theirs = one.read(at, size), other.read(at, size)
        if ours == theirs:
            continue
        for page in range(0, size, PAGE):
            if ours[page : page + PAGE] == theirs[page : page + PAGE]:
                continue
            if at + page != high:
                if low < high:
                    yield low, high
                low = at + page
            high = at + page + PAGE
    if low < high:
        yield low, high
