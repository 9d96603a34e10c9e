"""
Which memory copies may map from `memory.img`, by what is known of its owners (`memory.owners`).

That knowledge is of CRIU's images; here the same is said of a process that stands still.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images.codec import VARINT, Message
from libcriu_py.memory import allocators, libraries, memory, plan
from libcriu_py.memory.owners import LIBRARY_DATA, Census, Owned, recognise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.native.facts import Facts
    from libcriu_py.native.regions import Region

_MM_ENV_START, _MM_ENV_END = 10, 11
_START_BRK, _ENV_START, _ENV_END = 44, 47, 48
"""Fields of /proc/PID/stat, counted from the state (proc_pid_stat(5): 47, 50, 51)."""
_MAP_NORESERVE = 0x4000


class Choice(NamedTuple):
    """What to map, and why that and no more."""

    why: str
    owned: Sequence[Owned] = ()
    """Ranges within single areas, by address."""


class StandingMemory(memory.Memory):
    """The memory of a process that stands still."""

    def __init__(self, facts: Facts, regions: Sequence[Region], image: int) -> None:
        """
        Describe the memory as CRIU's images would.

        Args:
            facts: What the dump wrote down.
            regions: The areas.
            image: `memory.img`, open for reading.
        """
        self.pid = facts.original
        self.numbers: dict[bytes, int] = {}
        """The id of each mapped file, by path."""
        self.areas = [self._area(region) for region in regions if not region.is_shared]
        self._areas = [area.start for area in self.areas]
        self.wiped = []
        self.runs = [memory.Run(*run, Message()) for run in facts.runs]
        self._starts = [run.start for run in self.runs]
        self.mm = _mm(facts, regions)
        self.fd = os.dup(image)
        size = os.fstat(image).st_size
        self.view = mmap.mmap(image, size, prot=mmap.PROT_READ) if size else b""

    def _area(self, region: Region) -> memory.Area:
        flags, status, number = memory.MAP_PRIVATE, memory.REGULAR, 0
        if region.inode:
            status |= memory.FILE_PRIVATE
            path = region.path.removesuffix(b" (deleted)") if region.is_of_snapshot else region.path
            number = self.numbers.setdefault(path, len(self.numbers) + 1)
        else:
            status |= memory.ANON_PRIVATE | (memory.HEAP if region.path == b"[heap]" else 0)
            flags |= memory.MAP_ANONYMOUS
        flags |= _MAP_NORESERVE * ("nr" in region.flags)
        flags |= memory.MAP_GROWSDOWN * ("gd" in region.flags) | memory.MAP_LOCKED * ("lo" in region.flags)
        names = (memory.START, memory.END, memory.PGOFF, memory.SHMID)
        values = dict(zip(names, (region.start, region.end, region.offset, number), strict=True))
        values |= {memory.PROT: region.protection, memory.FLAGS: flags}
        return memory.Area(_message(values | {memory.STATUS: status, memory.MADV: region.advice}))


def _message(values: dict[int, int]) -> Message:
    return Message([(number, VARINT, value) for number, value in values.items()])


def _mm(facts: Facts, regions: Sequence[Region]) -> Message:
    # The kernel tells where the heap begins; its end is that of its last area.
    heap = max((region.end for region in regions if region.path == b"[heap]"), default=0)
    values = {memory.MM_START_BRK: int(facts.stat[_START_BRK]), memory.MM_BRK: heap}
    values |= {_MM_ENV_START: int(facts.stat[_ENV_START]), _MM_ENV_END: int(facts.stat[_ENV_END])}
    return _message(values)


def choose(facts: Facts, regions: Sequence[Region], image: int, wanted: str, census: Census | None) -> Choice:
    """
    Choose what copies map from `memory.img`.

    Args:
        facts: What the dump wrote down.
        regions: The areas.
        image: `memory.img`, open for reading.
        wanted: "auto"; "map" for large malloc blocks even if another allocator is loaded; "copy" for nothing.
        census: What malloc said about its large blocks.
    """
    if wanted == "copy":
        return Choice("as asked for")
    standing = StandingMemory(facts, regions, image)
    with standing:
        known = {number: libraries.File(os.fsdecode(path), _size(path)) for path, number in standing.numbers.items()}
        foreign = allocators.found(known, [standing])
        if allocators.owns_heap(foreign):
            return Choice(f"{allocators.describe(foreign)} may own the heap and purge it")
        others = bool(foreign) and wanted == "auto"
        earlier = libraries.memory_images(known)
        bss = libraries.bss(known, [standing])
        owned = recognise(standing, census=census, others=others, bss=bss, without=earlier)
        # What an earlier snapshot mapped was safe then.
        owned += [
            Owned(area.start, area.end, LIBRARY_DATA)
            for area in standing.areas
            if area.message.number(memory.SHMID) in earlier and not area.prot & memory.PROT_EXEC
        ]
        pieces = plan.cut(standing, sorted(owned))
    why = "the owners of these areas never count on zeros after giving pages back"
    if foreign:
        rest = "what it may own is copied" if others else "what looks like malloc's is mapped, as asked for"
        why += f"; {allocators.describe(foreign)} is there, and {rest}"
    return Choice(why, pieces)


def _size(path: bytes) -> int | None:
    try:
        return os.stat(path).st_size
    except OSError:
        return None
