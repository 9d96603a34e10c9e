"""
Recognising the owner of memory, to map only areas whose owner does not rely on anonymous memory.

Mapped memory differs from anonymous memory: after MADV_DONTNEED it has the snapshot's bytes again instead of zeros,
MADV_FREE fails, and growing it with mremap(2) adds the next part of the file or nothing (SIGBUS). So an area is mapped
only if its own content proves that one of these owns it:

malloc heap
    glibc's main arena in [heap], which brk(2) shrinks and grows. malloc_trim(3) purges free chunks with MADV_DONTNEED,
    but nothing expects zeros there: calloc skips clearing only for memory that brk has just added (glibc's
    malloc/malloc.c: mtrim, MORECORE_CLEARS).
malloc arena
    glibc's heaps for threads, aligned to 64 MB. shrink_heap purges with MADV_DONTNEED, and calloc clears up to
    `mprotect_size`, below which everything may be dirty (malloc/arena.c; malloc.c: __libc_calloc).
malloc block
    glibc's large chunks, each its own mapping. free() unmaps them. realloc() grows them with mremap; if that fails,
    as across two areas, it copies the data (malloc.c: mremap_chunk, __libc_realloc). So the first page of each stays
    anonymous: mremap then fails, or grows only anonymous memory.
pymalloc
    CPython's arenas for small objects, unmapped when empty, never purged (Objects/obmalloc.c; `pymalloc` finds them).
library data
    Written pages of the data segments of libraries. Nobody purges them.
library bss
    The anonymous pages behind them for zero-initialised variables, as many as the library's file says (`libraries`).
    They belong to the library while it is loaded: nobody purges, unmaps or grows them.
library file
    All of a small library, including its code: unwritten pages have the same content in `memory.img` as in its file.

Everything else stays copied.
"""

from __future__ import annotations

import struct
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.memory.memory import (
    ANON_PRIVATE,
    FILE_PRIVATE,
    HEAP,
    MAP_ANONYMOUS,
    MAP_PRIVATE,
    PAGE,
    PGOFF,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
    REGULAR,
    SHMID,
    Area,
    Memory,
)
from libcriu_py.memory.pymalloc import POOL, find_arenas

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

MALLOC_HEAP = "malloc heap"
MALLOC_ARENA = "malloc arena"
MALLOC_BLOCK = "malloc block"
PYMALLOC = "pymalloc"
LIBRARY_DATA = "library data"
LIBRARY_BSS = "library bss"
LIBRARY_FILE = "library file"

_MAP_NORESERVE = 0x4000
_HUGEPAGE = 1 << 14  # MADV_HUGEPAGE, as a bit of Area.madvice

_WORDS = struct.Struct("<QQ")
_SIZE_FLAGS = 7
_PREV_INUSE, _IS_MMAPPED, _NON_MAIN_ARENA = 1, 2, 4
_MIN_CHUNK = 32
_HEAP_SAMPLE = 1_000  # chunks to follow in [heap]: anything but a malloc heap fails within two

_ARENA_HEAP = 64 << 20  # HEAP_MAX_SIZE of 64-bit glibc (malloc/arena.c)
_HEAP_INFO = struct.Struct("<QQQQ")  # ar_ptr, prev, size, mprotect_size


class Owned(NamedTuple):
    """A range of addresses whose owner is known."""

    start: int
    end: int
    owner: str


class _Span(NamedTuple):
    """Adjacent anonymous areas, which mmap(2) may have merged or madvise(2) split."""

    start: int
    end: int
    edges: frozenset[int]
    """The bounds of the areas."""


class Census(NamedTuple):
    """What malloc itself said about its large chunks, in the process, right before the dump."""

    number: int
    size: int
    """Their total size in bytes."""


def take_census() -> Census | None:
    """Return what this process's malloc says (mallinfo2(3)); None before glibc 2.33."""
    import ctypes

    class Info(ctypes.Structure):
        _fields_ = (
            ("heap", ctypes.c_size_t * 3),
            ("hblks", ctypes.c_size_t),
            ("hblkhd", ctypes.c_size_t),
            ("rest", ctypes.c_size_t * 5),
        )

    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return None
    ask.restype = Info
    info = ask()
    return Census(info.hblks, info.hblkhd)


def recognise(
    memory: Memory,
    *,
    census: Census | None = None,
    others: bool = False,
    bss: Mapping[int, Mapping[int, int]] = MappingProxyType({}),
    whole: Collection[int] = frozenset(),
    without: Collection[int] = frozenset(),
) -> list[Owned]:
    """
    Find the ranges of memory whose owner is known.

    Args:
        memory: The memory of a process.
        census: What its malloc said about its large chunks; finding exactly these proves them.
        others: Whether other allocators are loaded, so that only proved large chunks count.
        bss: Sizes of the bss of libraries, as from `libraries.bss`.
        whole: Ids of the libraries that are mapped as a whole.
        without: Ids of executed files that are not libraries.

    Returns:
        Disjoint ranges, by address.
    """
    areas = list(_library_areas(memory, without))
    behind = list(_library_bss(memory, areas, bss))
    found = [*_heap(memory), *_of_libraries(areas, whole), *behind]
    chains: list[tuple[list[tuple[int, int]], frozenset[int]]] = []
    spans = [(span, list(_malloc_arenas(memory, span))) for span in _spans(memory, behind)]
    gaps = [gap for span, arenas in spans for gap in _gaps(span, arenas)]
    pymalloc = [Owned(start, end, PYMALLOC) for start, end in find_arenas(memory, gaps)]
    for span, arenas in spans:
        known = sorted([*arenas, *(owned for owned in pymalloc if span.start <= owned.start < span.end)])
        # If only its pools are known, an arena starts up to one pool before the first.
        edges = span.edges | {owned.start - at for owned in known for at in range(0, POOL, PAGE)}
        chains += [(chain, edges) for start, end in _gaps(span, known) for chain in _chains(memory, start, end)]
        found += known
    proved = _is_complete([chain for chain, _ in chains], census)
    if proved or not others:
        found += [owned for chain, edges in chains for owned in _blocks(chain, None if proved else edges)]
    return sorted(found)


def is_ordinary(area: Area) -> bool:
    """Return whether an area is plain anonymous memory: private, readable, writable, without special flags."""
    return (
        area.status & ~HEAP == REGULAR | ANON_PRIVATE
        and area.prot == PROT_READ | PROT_WRITE
        and area.flags & ~_MAP_NORESERVE == MAP_PRIVATE | MAP_ANONYMOUS
        and not area.madvice & ~_HUGEPAGE
    )


def _spans(memory: Memory, without: Sequence[Owned]) -> Iterator[_Span]:
    """Yield the spans, each without owned ranges at its start."""
    known = {owned.start: owned.end for owned in without}
    group: list[Area] = []
    for area in memory.areas:
        wanted = is_ordinary(area) and not area.status & HEAP
        if group and (not wanted or group[-1].end != area.start):
            yield _span(group, known)
            group = []
        if wanted:
            group.append(area)
    if group:
        yield _span(group, known)


def _span(areas: list[Area], known: Mapping[int, int]) -> _Span:
    edges = frozenset(edge for area in areas for edge in (area.start, area.end))
    start = areas[0].start
    while start in known:
        start = known[start]
    return _Span(start, areas[-1].end, edges)


def _gaps(span: _Span, known: list[Owned]) -> Iterator[tuple[int, int]]:
    at = span.start
    for owned in known:
        if at < owned.start:
            yield at, owned.start
        at = max(at, owned.end)
    if at < span.end:
        yield at, span.end


# ---- glibc -----------------------------------------------------------------


def _heap(memory: Memory) -> Iterator[Owned]:
    areas = [area for area in memory.areas if area.status & HEAP]
    start, end = memory.brk
    if not areas or not all(map(is_ordinary, areas)) or areas[0].start > start or areas[-1].end < end:
        return
    if _is_malloc_heap(memory, -(-start // 16) * 16, end):
        yield Owned(areas[0].start, areas[-1].end, MALLOC_HEAP)


def _is_malloc_heap(memory: Memory, at: int, end: int) -> bool:
    """Return whether chunks follow each other from the first to the end of the heap."""
    block, base = b"", at
    for _ in range(_HEAP_SAMPLE):
        if at == end:
            return True
        if not base <= at <= base + len(block) - _WORDS.size:
            base = at
            block = memory.read(base, min(1 << 20, end - base))
            if len(block) < _WORDS.size:
                return False
        _, field = _WORDS.unpack_from(block, at - base)
        size = field & ~_SIZE_FLAGS
        if field & (_IS_MMAPPED | _NON_MAIN_ARENA) or size < _MIN_CHUNK or size % 16 or at + size > end:
            return False
        at += size
    return True


def _malloc_arenas(memory: Memory, span: _Span) -> Iterator[Owned]:
    for start in range(-(-span.start // _ARENA_HEAP) * _ARENA_HEAP, span.end, _ARENA_HEAP):
        arena, previous, size, writable = _HEAP_INFO.unpack(memory.read(start, _HEAP_INFO.size))
        if not size or size % PAGE or not size <= writable <= min(_ARENA_HEAP, span.end - start):
            continue
        # The first heap holds the arena after its header; other heaps point to the previous one.
        first = previous == 0 and 0 < arena - start <= 2 * _HEAP_INFO.size
        later = previous and previous % _ARENA_HEAP == 0 and 0 < arena % _ARENA_HEAP <= 2 * _HEAP_INFO.size
        if first or later:
            yield Owned(start, start + writable, MALLOC_ARENA)


def _chains(memory: Memory, at: int, end: int) -> Iterator[list[tuple[int, int]]]:
    """Yield groups of adjacent large chunks in a range."""
    while at < end:
        chain = []
        while at < end and (size := _block_size(memory.read(at, PAGE))) and at + size <= end:
            chain.append((at, at + size))
            at += size
        if chain:
            yield chain
        else:
            at = _next_candidate(memory, at + PAGE, end)


def _is_complete(chains: list[list[tuple[int, int]]], census: Census | None) -> bool:
    blocks = [block for chain in chains for block in chain]
    return census == Census(len(blocks), sum(end - start for start, end in blocks))


def _blocks(chain: list[tuple[int, int]], edges: frozenset[int] | None) -> Iterator[Owned]:
    """
    Yield the large chunks of a chain without their first pages.

    Unproved chunks (`edges` is not None) count only up to the last one that ends at the start of something known.
    """
    while chain and edges is not None and chain[-1][1] not in edges:
        chain = chain[:-1]
    for start, end in chain:
        if end - start > PAGE:
            yield Owned(start + PAGE, end, MALLOC_BLOCK)


def _block_size(page: bytes) -> int:
    """Return the size of the large chunk with this first page; 0 if it is none."""
    for lead in range(0, PAGE, 16):
        before, field = _WORDS.unpack_from(page, lead)
        if before or field:
            # Aligned allocations start later, and say by how much (malloc.c, _int_memalign).
            size = (field & ~_SIZE_FLAGS) + lead
            return size if before == lead and field & _SIZE_FLAGS == _IS_MMAPPED and size % PAGE == 0 else 0
    return 0


def _next_candidate(memory: Memory, at: int, end: int) -> int:
    """Return the next page that may be the first of a large chunk."""
    for start, stop, offset in memory.pieces(at, end):
        for place in range(offset, offset + stop - start, PAGE):
            before, field = _WORDS.unpack_from(memory.view, place)
            if not before and (not field or field & _SIZE_FLAGS == _IS_MMAPPED):
                return start + place - offset
    return end


# ---- libraries -------------------------------------------------------------


def _of_libraries(areas: Sequence[Area], whole: Collection[int]) -> Iterator[Owned]:
    for area in areas:
        if area.message.number(SHMID) in whole:
            yield Owned(area.start, area.end, LIBRARY_FILE)
        elif not area.prot & PROT_EXEC:
            yield Owned(area.start, area.end, LIBRARY_DATA)


def _library_bss(memory: Memory, areas: Sequence[Area], bss: Mapping[int, Mapping[int, int]]) -> Iterator[Owned]:
    for data in areas:
        if data.prot & PROT_EXEC:
            continue
        behind = bss.get(data.message.number(SHMID), {}).get(data.message.number(PGOFF) + data.end - data.start, 0)
        at = data.end
        for area in memory.areas_within(at, at + behind):
            # Without address randomisation the heap, which brk(2) moves, may be in the same area.
            if area.start > at or area.status & HEAP or not is_ordinary(area):
                break
            at = min(area.end, data.end + behind)
            yield Owned(max(area.start, data.end), at, LIBRARY_BSS)


def _library_areas(memory: Memory, without: Collection[int]) -> Iterator[Area]:
    areas = [area for area in memory.areas if _is_file(area) and area.message.number(SHMID) not in without]
    libraries = {area.message.number(SHMID) for area in areas if area.prot & PROT_EXEC}
    return (area for area in areas if area.message.number(SHMID) in libraries)


def _is_file(area: Area) -> bool:
    return area.status == REGULAR | FILE_PRIVATE and area.flags == MAP_PRIVATE and not area.madvice
