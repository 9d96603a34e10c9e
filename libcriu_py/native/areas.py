"""What is mapped where in a copy, and what is read into it from `memory.img`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from libcriu_py.native.facts import FactsError, NotEligible
from libcriu_py.native.plan import NO_FILE, Area, AreaFlag, File, FileFlag, Read
from libcriu_py.native.regions import PROT_WRITE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from libcriu_py.memory.owners import Owned
    from libcriu_py.native.facts import Facts, Open, Saved
    from libcriu_py.native.regions import Region

MEMORY = b"memory.img"
_SEAL_WRITE, _SEAL_FUTURE_WRITE = 8, 16
_Range = TypeVar("_Range", "Owned", "Saved")


class Layout(NamedTuple):
    """The memory of a plan."""

    areas: tuple[Area, ...]
    reads: tuple[Read, ...]
    files: tuple[File, ...]


class _Files:
    """The files of a plan, `memory.img` first."""

    def __init__(self, size: int, memfds: Sequence[Open]) -> None:
        self.rows = [File(MEMORY, size, 0, FileFlag.OF_SNAPSHOT)]
        self._numbers: dict[tuple[bytes, int, int], int] = {}
        self._memfds = memfds

    def number(self, region: Region) -> int:
        """Return the index of a mapped file."""
        flags = FileFlag.WRITABLE if region.is_shared and "mw" in region.flags else 0
        key = region.path, region.inode if region.is_memfd else 0, flags
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            self.rows.append(self._of_memfd(region, flags) if region.is_memfd else _opened(region, flags))
        return self._numbers[key]

    def memfds(self, region: Region) -> list[Open]:
        """Return the descriptors of what an area shows, if that is a memfd."""
        there = region.inode if region.is_memfd else None
        return [
            one
            for one in self._memfds
            if one.inode == there and (os.major(one.dev), os.minor(one.dev)) == region.device and one.memory is not None
        ]

    def _of_memfd(self, region: Region, flags: int) -> File:
        """Return the file that a memfd is, by a descriptor with which a copy gets the same rights to the mapping."""
        for one in self.memfds(region):
            access, seals = one.flags & os.O_ACCMODE, (one.memory or (0, 0))[1]
            may_write = access == os.O_RDWR and not (region.is_shared and seals & (_SEAL_WRITE | _SEAL_FUTURE_WRITE))
            if access != os.O_WRONLY and (not region.is_shared or may_write == bool(flags)):
                return File(region.path, one.size, 0, flags | FileFlag.OF_MEMFD, one.fd)
        raise NotEligible(f"maps {os.fsdecode(region.path)}, of which it has no descriptor with the same rights")


def _opened(region: Region, flags: int) -> File:
    name = os.fsdecode(region.path)
    try:
        status = os.stat(region.path)
    except OSError as error:
        raise NotEligible(f"maps {name}, which cannot be found ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):
        raise NotEligible(f"maps {name}, which is no regular file")
    # On layers of an overlay the kernel's numbers are others than those that stat returns.
    is_alike = (os.major(status.st_dev), os.minor(status.st_dev)) == region.device
    if is_alike and status.st_ino != region.inode:
        raise NotEligible(f"maps {name}, which was replaced")
    return File(region.path, status.st_size, status.st_mtime_ns, flags)


def lay_out(
    facts: Facts, regions: Sequence[Region], owned: Sequence[Owned], guards: Sequence[tuple[int, int]], size: int
) -> Layout:
    """
    Decide the source of each area.

    Args:
        facts: What the dump wrote down.
        regions: The areas of the process that stands still.
        owned: What may be mapped from `memory.img`, by address, each within one area.
        guards: Ranges that nobody may touch, by address, each within one area.
        size: That of `memory.img`.

    Raises:
        NotEligible: A file that is mapped is not there any more.
        FactsError: What was saved does not fit the areas.
    """
    files = _Files(size, [one for one in facts.descriptors if one.memory is not None])
    saved = {one.start: one for one in facts.areas}
    areas: list[Area] = []
    reads: list[Read] = []
    pieces_left, runs_left = list(reversed(owned)), list(reversed(facts.runs))
    for region in regions:
        if facts.scratch[0] <= region.start < facts.scratch[1]:
            continue
        content = saved.pop(region.start, None)
        if not files.memfds(region):
            _refuse_area(region, content, regions)
        pieces, runs = _taken(pieces_left, region.end), _taken(runs_left, region.end)
        if region.is_wiped:
            pieces, runs = [], []
        inner = [guard for guard in guards if region.start <= guard[0] < region.end]
        for area in _guarded(_areas(region, files, pieces, content), inner):
            inside = [] if area.file == 0 or area.flags & AreaFlag.GUARD else list(_reads(area, runs))
            flags = area.flags | AreaFlag.PROTECT * bool(inside and not area.protection & PROT_WRITE)
            _append(areas, area._replace(flags=flags))
            for one in inside:
                _append_read(reads, one)
    if saved or pieces_left or runs_left:
        raise FactsError("memory was saved that is not there")
    return Layout(tuple(areas), tuple(reads), tuple(files.rows))


def _taken(left: list[_Range], end: int) -> list[_Range]:
    """Take from the end of a list what begins before an address."""
    taken = []
    while left and left[-1].start < end:
        taken.append(left.pop())
    return taken


def _refuse_area(region: Region, content: Saved | None, regions: Sequence[Region]) -> None:
    if content is not None and content.end != region.end:
        raise FactsError("an area has other bounds than when it was saved")
    if region.is_of_snapshot and content is None:
        raise FactsError("memory of an earlier snapshot was not saved")
    if region.is_nameless and (content is None or _is_mapped_again(region, regions)):
        raise NotEligible(f"has shared memory that is large or mapped twice ({os.fsdecode(region.path)})")


def _is_mapped_again(region: Region, regions: Sequence[Region]) -> bool:
    """Return whether other areas show the same part of an object."""
    end = region.offset + region.end - region.start
    return any(
        (one.device, one.inode) == (region.device, region.inode)
        and one.start != region.start
        and one.offset < end
        and region.offset < one.offset + one.end - one.start
        for one in regions
    )


def _areas(region: Region, files: _Files, pieces: Sequence[Owned], content: Saved | None) -> Iterator[Area]:
    """Yield the parts of an area, by address: what is mapped from `memory.img`, and the rest."""
    at = region.start
    for piece in pieces:
        if content is None:
            raise FactsError("an area without content is to be mapped")
        if at < piece.start:
            yield _rest(region, files, at, piece.start)
        offset = content.offset + piece.start - region.start
        yield Area(piece.start, piece.end, region.protection, _flags(region), 0, offset, region.advice)
        at = piece.end
    if at < region.end:
        yield _rest(region, files, at, region.end)


def _guarded(areas: Iterable[Area], guards: Sequence[tuple[int, int]]) -> Iterator[Area]:
    """Cut areas where guard regions begin and end."""
    for area in areas:
        at = area.start
        for start, end in guards:
            if not (area.start <= start < area.end):
                continue
            if at < start:
                yield _part(area, at, start)
            yield area._replace(start=start, end=end, flags=area.flags | AreaFlag.GUARD, file=NO_FILE, offset=0)
            at = end
        if at < area.end:
            yield _part(area, at, area.end)


def _part(area: Area, start: int, end: int) -> Area:
    shift = 0 if area.file == NO_FILE else start - area.start
    return area._replace(start=start, end=end, offset=area.offset + shift)


def _rest(region: Region, files: _Files, start: int, end: int) -> Area:
    is_kept = region.is_nameless and not files.memfds(region)
    if not region.inode or is_kept or region.is_of_snapshot:
        return Area(start, end, region.protection, _flags(region), NO_FILE, 0, region.advice)
    offset = region.offset + start - region.start
    return Area(start, end, region.protection, _flags(region), files.number(region), offset, region.advice)


def _flags(region: Region) -> int:
    return (
        AreaFlag.SHARED * region.is_shared
        | AreaFlag.GROWS_DOWN * ("gd" in region.flags)
        | AreaFlag.NO_RESERVE * ("nr" in region.flags)
        | AreaFlag.LOCKED * ("lo" in region.flags)
    )


def _reads(area: Area, runs: Sequence[Saved]) -> Iterator[Read]:
    for start, end, offset in runs:
        low, high = max(start, area.start), min(end, area.end)
        if low < high:
            yield Read(low, high, offset + low - start)


def _append(areas: list[Area], area: Area) -> None:
    """Add an area, to the one before it where both can be one mapping."""
    if areas:
        last = areas[-1]
        shift = 0 if area.file == NO_FILE else last.end - last.start
        if (
            last.end == area.start
            and not area.flags & AreaFlag.GROWS_DOWN
            and area == last._replace(start=area.start, end=area.end, offset=last.offset + shift)
        ):
            areas[-1] = last._replace(end=area.end)
            return
    areas.append(area)


def _append_read(reads: list[Read], read: Read) -> None:
    last = reads[-1] if reads else None
    if last is not None and last.end == read.start and last.offset + last.end - last.start == read.offset:
        reads[-1] = last._replace(end=read.end)
    else:
        reads.append(read)
