"""
Recognising the arenas of pymalloc, CPython's allocator for small objects (Objects/obmalloc.c).

An arena is a mapping of 1 MB, cut into aligned pools of 16 kB. The headers of pools alone show an arena from its first
used pool to its last. The bounds of arenas are in a table in malloc's heap. It is found by its content: for every arena
that pools refer to, it must have an address that fits these pools. With the table whole arenas are known, and adjacent
ones can be mapped as one area.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.search import find_words
from libcriu_py.memory.memory import HEAP, PAGE

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Iterator, Sequence

    from libcriu_py.memory.memory import Memory

POOL = 16 << 10
"""Bytes of a pool (POOL_SIZE since Python 3.10, Include/internal/pycore_obmalloc.h)."""
ARENA = 1 << 20
"""Bytes of an arena (ARENA_SIZE)."""
_HEADER = struct.Struct("<IIQQQIIII")
_OVERHEAD = 48
_SIZE_CLASSES = 32
_ENTRY = 48
"""Bytes of a `struct arena_object`, whose first member is the address of the arena."""
_ADDRESS = struct.Struct("<Q")


class _Arena(NamedTuple):
    """What the pools of an arena show."""

    first: int
    """The address of its first pool."""
    last: int
    """The end of its last pool."""
    number: int
    """Its index in the table."""

    def can_begin_at(self, address: int) -> bool:
        """Return whether the arena can start at an address: it must contain all the pools."""
        return address % PAGE == 0 and address <= self.first and self.last <= address + ARENA


def find_arenas(memory: Memory, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    Find arenas.

    Args:
        memory: The memory of a process.
        ranges: Ranges of anonymous memory to search.

    Returns:
        Ranges of whole arenas; of their used pools if the table is not found.
    """
    ranges = list(ranges)
    found = [arena for start, end in ranges for arena in _arenas(memory, start, end)]
    addresses = _addresses(memory, found)
    if addresses is None:
        return [(arena.first, arena.last) for arena in found]
    whole = [(address, address + ARENA) for address in addresses]
    # An arena is one anonymous mapping: drop addresses that are not.
    return [
        (start, end) if any(low <= start and end <= high for low, high in ranges) else (arena.first, arena.last)
        for arena, (start, end) in zip(found, whole, strict=True)
    ]


# ---- pools -----------------------------------------------------------------


def _arenas(memory: Memory, start: int, end: int) -> Iterator[_Arena]:
    """Group pools into arenas: adjacent ones with the same index within an arena's size."""
    first = last = index = None
    for at, pool in _pools(memory, start, end):
        if first is not None and last is not None and index is not None:
            if pool == index and at + POOL - first <= ARENA:
                last = at + POOL
                continue
            yield _Arena(first, last, index)
        first, last, index = at, at + POOL, pool
    if first is not None and last is not None and index is not None:
        yield _Arena(first, last, index)


def _pools(memory: Memory, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the address of each pool and the index of its arena."""
    for low, high, offset in memory.pieces(start, end - end % POOL):
        for at in range(-(-low // POOL) * POOL, high, POOL):
            index = _arena_of_pool(memory.view, offset + at - low)
            if index is not None:
                yield at, index


def _arena_of_pool(pages: mmap.mmap | bytes, place: int) -> int | None:
    """Return the index of a pool's arena; None if this is not a pool."""
    count, _, free, following, preceding, index, size_class, offset, limit = _HEADER.unpack_from(pages, place)
    size = (size_class + 1) * 16
    sound = (
        size_class < _SIZE_CLASSES
        and limit == POOL - size
        and count <= (POOL - _OVERHEAD) // size
        and _OVERHEAD < offset <= POOL
        and (offset - _OVERHEAD) % size == 0
        and following % 8 == 0
        and preceding % 8 == 0
        and following
        and free % 16 == 0
    )
    return index if sound else None


# ---- the table -------------------------------------------------------------


def _addresses(memory: Memory, arenas: Sequence[_Arena]) -> list[int] | None:
    """Return the addresses of arenas; None unless exactly one table has them all."""
    if not arenas:
        return None
    probe = max(arenas, key=lambda arena: arena.last - arena.first)  # the one with the fewest possible addresses
    tables = {
        place - probe.number * _ENTRY for place in _places_of(memory, range(probe.last - ARENA, probe.first + 1, PAGE))
    }
    fitting = [listed for table in sorted(tables) if (listed := _read_table(memory, table, arenas)) is not None]
    return fitting[0] if len(fitting) == 1 else None


def _places_of(memory: Memory, addresses: range) -> Iterator[int]:
    """Yield where malloc's heap holds one of these page addresses."""
    for area in memory.areas:
        if not area.status & HEAP:
            continue
        for start, end, offset in memory.pieces(area.start, area.end):
            for place in find_words(memory.view, offset, offset + end - start, addresses):
                yield start + place - offset


def _read_table(memory: Memory, table: int, arenas: Sequence[_Arena]) -> list[int] | None:
    """Return the addresses of arenas in a table; None if one does not fit its pools."""
    listed = []
    for arena in arenas:
        (address,) = _ADDRESS.unpack(memory.read(table + arena.number * _ENTRY, _ADDRESS.size))
        if not arena.can_begin_at(address):
            return None
        listed.append(address)
    return listed
