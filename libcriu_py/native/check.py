"""
Compare a written plan and its `memory.img` with the process that stands still, before anybody can start a copy.

This knows nothing of the plan's writer and reads /proc in its own way, so that a mistake there is a refusal here and
not a wrong copy. It works out what the launcher would put at each address, and compares that with what is there.
"""

from __future__ import annotations

import mmap
import os
import re
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.native import plan as format_of_plan
from libcriu_py.native.check_content import Alike, first_difference
from libcriu_py.native.check_descriptors import Differs, compare_descriptors
from libcriu_py.native.plan import NO_FILE, PAGE, AreaFlag, FileFlag

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from libcriu_py.native.facts import Facts
    from libcriu_py.native.plan import Area, Plan

_BLOCK = 1 << 20
"""Bytes of other files that are compared at once."""
_ZEROS = bytes(_BLOCK)
_HEAD = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (.)(.)(.)(.) ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)$", re.MULTILINE
)
_FLAGS = re.compile(rb"^VmFlags:(.*)$", re.MULTILINE)
_KERNEL = re.compile(rb"\[(vvar|vvar_vclock|vdso|vsyscall)\]")
_ADVISED = {b"rr": 1, b"sr": 2, b"dc": 10, b"mg": 12, b"hg": 14, b"nh": 15, b"dd": 16, b"wf": 18}
_OWN, _GUARD = b"o", b"g"
# By the upper byte of an entry of the pagemap: present 0x80, swapped 0x40, of a file 0x20, guard 0x04.
_STATES = bytes((_GUARD if top & 0x04 else _OWN if top & 0xC0 and not top & 0x20 else b"-")[0] for top in range(256))
_RUNS = re.compile(rb"o+|g+|-+")


class _Placed(NamedTuple):
    """What the launcher puts somewhere."""

    start: int
    end: int
    area: Area
    image: int | None
    """Offset in `memory.img` of the first byte; None if it is not from there."""


class Mapped(NamedTuple):
    """A line of /proc/PID/smaps, and its flags."""

    start: int
    end: int
    protection: int
    is_shared: bool
    offset: int
    device: tuple[int, int]
    inode: int
    path: bytes
    flags: frozenset[bytes]


def compare(data: bytes, mapped: Sequence[Mapped], image: int, facts: Facts, ours: Collection[int]) -> None:
    """
    Compare a plan with a process.

    Args:
        data: The plan as it was written.
        mapped: What the process has mapped, from `parse`.
        image: `memory.img`, open for reading.
        facts: Which process it is, and which of its memory and descriptors copies do not have.
        ours: Open files that copies do not have, as descriptors of this process.

    Raises:
        Differs: A copy would not be that process.
        PlanError: The plan is damaged.
        OSError: Something cannot be read.
    """
    plan = format_of_plan.decode(data)
    low, high = facts.scratch
    areas = [one for one in mapped if not (low <= one.start and one.end <= high)]
    checker = _Checker(plan, image, facts.standing, is_twin=facts.standing != facts.original)
    try:
        checker.areas(areas)
        checker.registers()
    finally:
        checker.close()
    compare_descriptors(plan, facts, image, ours)
    if facts.standing == facts.original:  # a fork leaves timers out
        _compare_timers(facts)


def _compare_timers(facts: Facts) -> None:
    """Compare what was noted of timers with what the kernel says of them, in its order."""
    try:
        with open(f"/proc/{facts.standing}/timers", "rb") as file:
            told = file.read().split()
    except FileNotFoundError:
        return
    kinds = {b"signal": 0, b"none": 1, b"thread": 2}
    found = set()
    for number, signal, notify, clock in zip(*(told[place::8] for place in (1, 3, 5, 7)), strict=True):
        name, value = signal.split(b"/")
        kind, target, thread = notify.replace(b".", b"/").split(b"/")
        how = kinds[kind] | 4 * (target == b"tid")
        found.add((int(number), int(clock) & 0xFFFFFFFF, int(name), how, int(thread), int(value, 16)))
    if found != {timer[:-1] for timer in facts.noted_timers}:
        raise Differs("the timers are others")


def parse(smaps: bytes) -> list[Mapped]:
    """Read what a process has mapped from its /proc/PID/smaps, with nothing that the plan's writer uses."""
    found = []
    for head, flags in zip(_HEAD.finditer(smaps), _FLAGS.finditer(smaps), strict=True):
        start, end, read, write, execute, sharing, offset, major, minor, inode, path = head.groups()
        if _KERNEL.fullmatch(path):
            continue
        one = Mapped(
            start=int(start, 16),
            end=int(end, 16),
            protection=(read == b"r") | (write == b"w") << 1 | (execute == b"x") << 2,
            is_shared=sharing == b"s",
            offset=int(offset, 16),
            device=(int(major, 16), int(minor, 16)),
            inode=int(inode),
            path=path.replace(b"\\012", b"\n"),
            flags=frozenset(flags[1].split()),
        )
        found.append(one)
    return found


class _Checker:
    """The comparison of memory."""

    def __init__(self, plan: Plan, image: int, pid: int, *, is_twin: bool) -> None:
        self._plan = plan
        self._pid = pid
        self._is_twin = is_twin
        self._image = image
        self._size = os.fstat(image).st_size
        self._content = mmap.mmap(image, self._size, prot=mmap.PROT_READ) if self._size else b""
        self._memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._pagemap = os.open(f"/proc/{pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._files: dict[int, int] = {}
        self._block = bytearray(_BLOCK)
        self._alike: list[Alike] = []

    def close(self) -> None:
        """Close what was opened."""
        for fd in (self._memory, self._pagemap, *self._files.values()):
            os.close(fd)

    def areas(self, mapped: Sequence[Mapped]) -> None:
        """Compare all areas: bounds, flags, content."""
        placed = list(_placed(self._plan))
        at = reached = 0
        for one in mapped:
            if at < len(placed) and max(placed[at].start, reached) < one.start:
                raise Differs(f"the area at {placed[at].start:x} is not in the process")
            reached = one.start
            while reached < one.end:
                if at == len(placed) or placed[at].start > reached:
                    raise Differs(f"the area at {reached:x} is missing")
                piece = placed[at]
                high = min(piece.end, one.end)
                self._compare_piece(one, piece, reached, high)
                at += high == piece.end
                reached = high
        if at != len(placed):
            raise Differs(f"the area at {placed[at].start:x} is not in the process")
        different = first_difference(self._memory, self._content, self._alike)
        if different is not None:
            raise Differs(f"the memory at {different:x} has other content")

    def registers(self) -> None:
        """Check that the process can go on where the plan says."""
        plan = self._plan
        for address, bits, what in ((plan.resume, 5, "code"), (plan.stack - 1, 3, "stack"), (plan.fs, 3, "fs")):
            if not any(a.start <= address < a.end and a.protection & bits == bits for a in plan.areas):
                raise Differs(f"there is no memory for the {what} that a copy begins with, at {address:x}")

    # ---- an area -----------------------------------------------------------

    def _compare_piece(self, one: Mapped, piece: _Placed, low: int, high: int) -> None:
        area = piece.area
        flags = (
            AreaFlag.SHARED * one.is_shared
            | AreaFlag.GROWS_DOWN * (b"gd" in one.flags)
            | AreaFlag.NO_RESERVE * (b"nr" in one.flags)
            | AreaFlag.LOCKED * (b"lo" in one.flags)
        )
        advice = sum(1 << number for name, number in _ADVISED.items() if name in one.flags)
        is_alike = area.protection == one.protection and area.flags & ~AreaFlag.PROTECT & ~AreaFlag.GUARD == flags
        if not is_alike or area.advice != advice:
            raise Differs(f"the area at {low:x} has another protection, other flags or other advice")
        if area.file != NO_FILE and piece.image is None and not self._is_of(one, area, low):
            raise Differs(f"the area at {low:x} is of another file, or of another part of it")
        if b"wf" in one.flags:
            if area.file != NO_FILE or piece.image is not None:
                raise Differs(f"the area at {low:x} has content, which a fork leaves empty")
        elif one.is_shared and not one.path.endswith(b" (deleted)"):
            if area.file == NO_FILE or piece.image is not None:
                raise Differs(f"the area at {low:x} is not shared with its file")
        elif one.is_shared:
            self._compare_nameless(piece, low, high)
        else:
            self._compare_content(one, piece, low, high)

    def _compare_nameless(self, piece: _Placed, low: int, high: int) -> None:
        """Compare shared memory without a name; the content of a memfd is that of its descriptor."""
        if self._is_of_memfd(piece.area):
            return
        if piece.area.file != NO_FILE or piece.image is None:
            raise Differs(f"the area at {low:x} lacks its content, or is of a file")
        if not self._is_twin:  # the original goes on to write into what it shares with its twin
            self._compare_bytes(piece, low, high)

    def _is_of_memfd(self, area: Area) -> bool:
        return area.file != NO_FILE and bool(self._plan.files[area.file].flags & FileFlag.OF_MEMFD)

    def _is_of(self, one: Mapped, area: Area, low: int) -> bool:
        """Return whether a plan's area maps the part of the file that an area of the process does."""
        file = self._plan.files[area.file]
        is_memfd = self._is_of_memfd(area)
        if file.path != one.path or area.offset + low - area.start != one.offset + low - one.start:
            return False
        status = os.stat(f"/proc/{self._pid}/fd/{file.descriptor}" if is_memfd else file.path)
        if (os.major(status.st_dev), os.minor(status.st_dev)) == one.device and status.st_ino != one.inode:
            return False
        is_writable = one.is_shared and b"mw" in one.flags
        same_mode = bool(file.flags & FileFlag.WRITABLE) == is_writable
        if is_memfd:  # the original of a twin goes on to write into it
            return same_mode and (self._is_twin or status.st_size == file.size)
        return same_mode and (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)

    def _compare_content(self, one: Mapped, piece: _Placed, low: int, high: int) -> None:
        entries = os.pread(self._pagemap, (high - low) // PAGE * 8, low // PAGE * 8)
        if len(entries) != (high - low) // PAGE * 8:
            raise Differs(f"the pages at {low:x} cannot be looked at")
        for run in _RUNS.finditer(entries[7::8].translate(_STATES)):
            start, end = low + run.start() * PAGE, low + run.end() * PAGE
            kind = run[0][:1]
            is_guard = bool(piece.area.flags & AreaFlag.GUARD)
            if is_guard != (kind == _GUARD):
                raise Differs(f"there is a guard region at {start:x}, or there is none")
            if kind == _GUARD:
                continue
            if kind == _OWN or (one.inode and piece.image is not None):
                self._compare_bytes(piece, start, end)
            elif not one.inode:
                self._need_zeros(piece, start, end)
            elif piece.area.file == NO_FILE:
                raise Differs(f"the area at {start:x} lacks its file")

    def _compare_bytes(self, piece: _Placed, start: int, end: int) -> None:
        if piece.image is not None:
            self._alike.append(Alike(start, end, piece.image + start - piece.start))
            return
        for at in range(start, end, _BLOCK):
            size = min(_BLOCK, end - at)
            block = self._block if size == _BLOCK else bytearray(size)
            if os.preadv(self._memory, [block], at) != size:
                raise Differs(f"the memory at {at:x} cannot be read")
            if block != self._expected(piece, at, size):
                raise Differs(f"the memory at {at:x} has other content")

    def _expected(self, piece: _Placed, at: int, size: int) -> bytes:
        area = piece.area
        if area.file == NO_FILE:
            return _ZEROS[:size]
        if area.file not in self._files:
            file = self._plan.files[area.file]
            path = f"/proc/{self._pid}/fd/{file.descriptor}" if self._is_of_memfd(area) else file.path
            self._files[area.file] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(self._files[area.file], size, area.offset + at - area.start).ljust(size, b"\0")

    def _need_zeros(self, piece: _Placed, start: int, end: int) -> None:
        """Require zeros at addresses where the process has no pages."""
        if piece.image is None:
            if piece.area.file != NO_FILE:
                raise Differs(f"the area at {start:x} is of a file")
            return
        low = piece.image + start - piece.start
        high = low + end - start
        if high > self._size:
            raise Differs(f"the area at {start:x} is beyond the end of memory.img")
        at = low
        while at < high:
            try:
                at = os.lseek(self._image, at, os.SEEK_DATA)
            except OSError:
                return  # there are holes up to the end
            data = self._content[at : min(high, at + _BLOCK)]
            if data != _ZEROS[: len(data)]:
                raise Differs(f"the memory at {start:x} has other content: the process has none")
            at += _BLOCK


def _placed(plan: Plan) -> Iterator[_Placed]:
    """Yield what the launcher puts where, by address: areas, cut where reads begin and end."""
    reads = list(plan.reads)
    at = 0
    for area in plan.areas:
        start = area.start
        is_image = area.file != NO_FILE and plan.files[area.file].flags & FileFlag.OF_SNAPSHOT
        if is_image and plan.files[area.file].path != b"memory.img":
            raise Differs("an area is of another file of the snapshot")
        while start < area.end:
            while at < len(reads) and reads[at].end <= start:
                at += 1
            read = reads[at] if at < len(reads) and reads[at].start < area.end else None
            if read is not None and read.start <= start:
                end = min(area.end, read.end)
                yield _Placed(start, end, area, read.offset + start - read.start)
            else:
                end = area.end if read is None else read.start
                yield _Placed(start, end, area, area.offset + start - area.start if is_image else None)
            start = end
