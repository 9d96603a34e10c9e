"""
Recognising the arenas of pymalloc, CPython's allocator for small objects (Objects/obmalloc.c).

An arena is a mapping of 1 MB, cut into pools of 16 kB that are aligned to their size. Pools have headers that agree
with each other, and with them alone an arena is known from its first pool in use to its last. Where the arena begins
and ends stands in a table of all arenas, in the heap of malloc. It is found by its content: at the places of all the
arenas that pools tell of, it must have addresses at which these pools can lie. Then whole arenas are known, and those
that follow each other can be mapped as one area.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

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
_BLOCK = 1 << 20


class _Arena(NamedTuple):
    """What pools tell of an arena."""

    first: int
    """Its first pool."""
    last: int
    """The end of its last one."""
    number: int
    """Its place in the table."""

    def can_begin_at(self, address: int) -> bool:
        """Return whether its pools can lie there: the first is where the first aligned address is, or later."""
        return address % PAGE == 0 and address <= self.first and self.last <= address + ARENA


def find_arenas(memory: Memory, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """
    Find arenas.

    Args:
        memory: Of a process.
        ranges: Of anonymous memory in which they may be.

    Returns:
        Ranges of addresses: of whole arenas, or, where the table is not found, of their pools.
    """
    ranges = list(ranges)
    found = [arena for start, end in ranges for arena in _arenas(memory, start, end)]
    addresses = _addresses(memory, found)
    if addresses is None:
        return [(arena.first, arena.last) for arena in found]
    whole = [(address, address + ARENA) for address in addresses]
    # An arena is one mapping: what is not anonymous memory all over is none.
    return [
        (start, end) if any(low <= start and end <= high for low, high in ranges) else (arena.first, arena.last)
        for arena, (start, end) in zip(found, whole, strict=True)
    ]


# ---- pools -----------------------------------------------------------------


def _arenas(memory: Memory, start: int, end: int) -> Iterator[_Arena]:
    """Find arenas by their pools, which are at most an arena apart and agree on its index."""
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
    """Yield the addresses of pools, which are aligned, and the indices of their arenas."""
    for low, high, offset in memory.pieces(start, end - end % POOL):
        for at in range(-(-low // POOL) * POOL, high, POOL):
            index = _arena_of_pool(memory.view, offset + at - low)
            if index is not None:
                yield at, index


def _arena_of_pool(pages: mmap.mmap | bytes, place: int) -> int | None:
    """Return the index of the arena that a pool belongs to; None if it is no pool."""
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
    """Return the address of each arena; None where there is no table that has them all, or more than one."""
    if not arenas:
        return None
    probe = max(arenas, key=lambda arena: arena.last - arena.first)  # which leaves the fewest addresses
    tables = {
        place - probe.number * _ENTRY for place in _places_of(memory, range(probe.last - ARENA, probe.first + 1, PAGE))
    }
    fitting = [listed for table in sorted(tables) if (listed := _read_table(memory, table, arenas)) is not None]
    return fitting[0] if len(fitting) == 1 else None


def _places_of(memory: Memory, addresses: Iterable[int]) -> Iterator[int]:
    """Find where the heap of malloc has one of these addresses, which are of pages."""
    words = [_ADDRESS.pack(address) for address in addresses]
    for area in memory.areas:
        if not area.status & HEAP:
            continue
        for start, end, _ in memory.pieces(area.start, area.end):
            for base in range(start, end, _BLOCK):
                block = memory.read(base, min(_BLOCK, end - base))
                for word in words:
                    # Without its outer bytes, which are zeros as most of a heap is: found in half the time.
                    place = block.find(word[1:6])
                    while place >= 0:
                        if place % 8 == 1 and block.startswith(word, place - 1):
                            yield base + place - 1
                        place = block.find(word[1:6], place + 1)


def _read_table(memory: Memory, table: int, arenas: Sequence[_Arena]) -> list[int] | None:
    """Return the addresses that a table has for arenas; None where their pools cannot lie there."""
    listed = []
    for arena in arenas:
        (address,) = _ADDRESS.unpack(memory.read(table + arena.number * _ENTRY, _ADDRESS.size))
        if not arena.can_begin_at(address):
            return None
        listed.append(address)
    return listed
