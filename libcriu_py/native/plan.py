"""
The plan of a native snapshot: which memory and descriptors the launcher makes before it becomes the dumped process.

The launcher's structures are in csrc/common/plan.h, which explains the fields; the names and numbers here are the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PLAN = "plan"
"""The name of the file in a snapshot."""
PAGE = 4096
NO_FILE = 0xFFFFFFFF
COMPONENTS = 32
FORMAT = 2
ANY_SIZE = 0xFFFFFFFFFFFFFFFF
"""The size of what a descriptor has open, where that does not matter."""
_MAGIC = b"\x93plan\r\n\0"

HEADER = struct.Struct(f"<8sIIQQQ{2 * COMPONENTS}I4Q2III2Q3Q12I24x")
AREA = struct.Struct("<QQQIHHQ")
READ = struct.Struct("<QQQ")
FILE = struct.Struct("<IIQqIi")
DESCRIPTOR = struct.Struct("<iiIIIIQQII")
WATCH = struct.Struct("<iiI4xQ")
LOCK = struct.Struct("<iIII2Q")
TIMER = struct.Struct("<qqQ")
MEMORY = struct.Struct("<QQII")
LISTENER = struct.Struct("<II")


class PlanError(ValueError):
    """A plan is damaged, or cannot be written."""


class AreaFlag:
    """What is special about an area of memory: bits."""

    SHARED = 1
    GROWS_DOWN = 2
    NO_RESERVE = 4
    LOCKED = 8
    PROTECT = 16
    GUARD = 32


class FileFlag:
    """How a mapped file is opened: bits."""

    OF_SNAPSHOT = 1
    WRITABLE = 2
    OF_MEMFD = 4


class Kind:
    """What a descriptor is."""

    REQUEST = 1
    OPEN = 2
    DUPLICATE = 3
    SOCKET_PAIR = 4
    PIPE = 5
    PIPE_END = 6
    EPOLL = 7
    EVENTFD = 8
    TIMERFD = 9
    SIGNALFD = 10
    MEMFD = 11
    LISTENER = 12
    INOTIFY = 13
    OTHER_END = 64


class LockKind:
    """How a lock was taken."""

    FLOCK = 1
    POSIX = 2
    OFD = 3


_AREA_FLAGS = 63
KINDS = frozenset(value for name, value in vars(Kind).items() if name.isupper())


class Area(NamedTuple):
    """A range of memory that one call of mmap(2) makes."""

    start: int
    end: int
    protection: int
    """PROT_* bits."""
    flags: int = 0
    """`AreaFlag` bits."""
    file: int = NO_FILE
    """Index of the mapped file."""
    offset: int = 0
    """In that file."""
    advice: int = 0
    """A bit for each MADV_* number."""


class Read(NamedTuple):
    """A range of memory that is read from `memory.img`."""

    start: int
    end: int
    offset: int


class File(NamedTuple):
    """A file that areas map."""

    path: bytes
    size: int
    mtime_ns: int = 0
    flags: int = 0
    """`FileFlag` bits."""
    descriptor: int = -1
    """Of the memfd that it is."""


class Descriptor(NamedTuple):
    """An open descriptor; what the fields mean depends on its kind."""

    fd: int
    kind: int
    flags: int = 0
    other: int = -1
    close_on_exec: int = 0
    form: int = 0
    """S_IFMT bits of what must be at a path; 0 for other kinds."""
    value: int = 0
    other_offset: int = 0
    data: bytes = b""


class Watch(NamedTuple):
    """What an epoll descriptor watches."""

    epoll: int
    fd: int
    events: int
    data: int


class Lock(NamedTuple):
    """A lock of an open file, which a copy takes anew."""

    fd: int
    kind: int
    """Of `LockKind`."""
    is_exclusive: int
    start: int = 0
    length: int = 0
    """0: to the end."""


class Plan(NamedTuple):
    """All of it."""

    xcr0: int
    components: tuple[tuple[int, int], ...]
    """Offset and size by number, as many as `COMPONENTS`."""
    special: tuple[int, int]
    vdso: tuple[int, int]
    vdso_content: bytes
    threads: int
    in_vdso: bool
    monotonic: int
    boottime: int
    resume: int
    stack: int
    fs: int
    areas: tuple[Area, ...]
    reads: tuple[Read, ...]
    files: tuple[File, ...]
    descriptors: tuple[Descriptor, ...]
    watches: tuple[Watch, ...]
    locks: tuple[Lock, ...] = ()


# ---- writing ----------------------------------------------------------------


class _Writer:
    """The part of a plan behind its header."""

    def __init__(self) -> None:
        self.data = bytearray(HEADER.size)
        self._texts: dict[bytes, tuple[int, int]] = {}

    def rows(self, layout: struct.Struct, rows: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """Append a list; return its offset and number of rows."""
        self.data += bytes(-len(self.data) % 8)
        at = len(self.data)
        self.data += b"".join([layout.pack(*row) for row in rows])
        return at, len(rows)

    def text(self, text: bytes) -> tuple[int, int]:
        """Append a text, once; return its offset and length."""
        if not text:
            return 0, 0
        if text not in self._texts:
            self.data += bytes(-len(self.data) % 8)
            self._texts[text] = len(self.data), len(text)
            self.data += text + b"\0"
        return self._texts[text]


def encode(plan: Plan) -> bytes:
    """
    Return the bytes of a plan.

    Args:
        plan: Its content.

    Raises:
        PlanError: A number is too large.
    """
    writer = _Writer()
    try:
        return _encode(plan, writer)
    except struct.error as error:
        message = f"a number does not fit into a plan: {error}"
        raise PlanError(message) from None


def _encode(plan: Plan, writer: _Writer) -> bytes:
    areas = [(a.start, a.end, a.offset, a.file, a.protection, a.flags, a.advice) for a in plan.areas]
    files = [(*writer.text(f.path), f.size, f.mtime_ns, f.flags, f.descriptor) for f in plan.files]
    descriptors = [
        (d.fd, d.other, d.kind, d.flags, d.close_on_exec, d.form, d.value, d.other_offset, *writer.text(d.data))
        for d in plan.descriptors
    ]
    content = writer.text(plan.vdso_content)
    lists = (
        *writer.rows(AREA, areas),
        *writer.rows(READ, plan.reads),
        *writer.rows(FILE, files),
        *writer.rows(DESCRIPTOR, descriptors),
        *writer.rows(WATCH, plan.watches),
        *writer.rows(LOCK, [(*lock[:3], 0, *lock[3:]) for lock in plan.locks]),
    )
    data = writer.data
    HEADER.pack_into(
        data,
        0,
        *(_MAGIC, FORMAT, HEADER.size, len(data), PAGE, plan.xcr0),
        *(number for component in plan.components for number in component),
        *(*plan.special, *plan.vdso, *content, plan.threads, plan.in_vdso),
        *(plan.monotonic, plan.boottime, plan.resume, plan.stack, plan.fs, *lists),
    )
    return bytes(data)


# ---- reading ----------------------------------------------------------------


def _rows(data: bytes, layout: struct.Struct, offset: int, count: int) -> Iterator[tuple[int, ...]]:
    end = offset + count * layout.size
    if offset % 8 or (count and offset < HEADER.size) or end > len(data):
        message = "a list is not in the plan"
        raise PlanError(message)
    return layout.iter_unpack(data[offset:end])


def _text(data: bytes, offset: int, length: int) -> bytes:
    text = data[offset : offset + length]
    if not length and not offset:
        return b""
    if offset < HEADER.size or data[offset + length : offset + length + 1] != b"\0":
        message = "a text is not in the plan"
        raise PlanError(message)
    return text


def decode(data: bytes) -> Plan:
    """
    Read a plan, and check that nothing in it contradicts the rest.

    Args:
        data: Its bytes.

    Raises:
        PlanError: This is not a plan, or it is damaged.
    """
    if len(data) < HEADER.size:
        message = "it is too short for a plan"
        raise PlanError(message)
    magic, version, header, size, page, xcr0, *numbers = HEADER.unpack_from(data)
    if (magic, version, header, size, page) != (_MAGIC, FORMAT, HEADER.size, len(data), PAGE):
        message = "it is no plan, or one of another format, size or page size"
        raise PlanError(message)
    components = tuple(zip(numbers[: 2 * COMPONENTS : 2], numbers[1 : 2 * COMPONENTS : 2], strict=True))
    low, high, start, end, at, length, threads, in_vdso, *rest = numbers[2 * COMPONENTS :]
    monotonic, boottime, resume, stack, fs, *lists = rest
    layouts = (AREA, READ, FILE, DESCRIPTOR, WATCH, LOCK)
    areas, reads, files, descriptors, watches, locks = (
        _rows(data, layout, *place) for layout, *place in zip(layouts, lists[::2], lists[1::2], strict=True)
    )
    plan = Plan(
        *(xcr0, components, (low, high), (start, end), _text(data, at, length), threads, bool(in_vdso)),
        *(monotonic, boottime, resume, stack, fs),
        areas=tuple(Area(a, b, protection, flags, file, at, ad) for a, b, at, file, protection, flags, ad in areas),
        reads=tuple(map(Read._make, reads)),
        files=tuple(File(_text(data, *row[:2]), *row[2:]) for row in files),
        descriptors=tuple(
            Descriptor(fd, kind, flags, other, close, form, value, offset, _text(data, at, length))
            for fd, other, kind, flags, close, form, value, offset, at, length in descriptors
        ),
        watches=tuple(map(Watch._make, watches)),
        locks=tuple(Lock(fd, kind, exclusive, *place) for fd, kind, exclusive, _, *place in locks),
    )
    _check_memory(plan)
    _check_descriptors(plan)
    return plan


def _need(condition: object, what: str) -> None:
    if not condition:
        message = f"it contradicts itself: {what}"
        raise PlanError(message)


def _check_memory(plan: Plan) -> None:
    last = 0
    for area in plan.areas:
        _need(last <= area.start < area.end and not (area.start | area.end | area.offset) % PAGE, "areas overlap")
        _need(area.file == NO_FILE or area.file < len(plan.files), "an area of an unknown file")
        _need(not (area.flags & AreaFlag.GROWS_DOWN and area.file != NO_FILE), "a stack of a file")
        _need(not area.flags & ~_AREA_FLAGS and not area.protection & ~7, "an area of an unknown kind")
        last = area.end
    last = at = 0
    for read in plan.reads:
        _need(last <= read.start < read.end and not (read.start | read.end | read.offset) % PAGE, "reads overlap")
        last = read.start
        while last < read.end:
            while at < len(plan.areas) and plan.areas[at].end <= last:
                at += 1
            _need(at < len(plan.areas) and plan.areas[at].start <= last, "a read beside all areas")
            area = plan.areas[at]
            _need(area.protection & 2 or area.flags & AreaFlag.PROTECT, "a read into an area that is not writable")
            last = min(area.end, read.end)


def _check_descriptors(plan: Plan) -> None:
    known = {0, 1, 2}
    awaited = -1
    for one in plan.descriptors:
        _need(one.fd > 2 and one.fd not in known and one.kind in KINDS, "a descriptor")
        _need((one.kind == Kind.OTHER_END) == (one.fd == awaited or awaited >= 0), "the other end of a pair")
        _need(one.kind != Kind.DUPLICATE or one.other in known, "a duplicate of what is not there")
        awaited = one.other if one.kind in {Kind.PIPE, Kind.SOCKET_PAIR} else -1
        known.add(one.fd)
    _need(awaited < 0, "a pair without the other end")
    epolls = {one.fd for one in plan.descriptors if one.kind == Kind.EPOLL}
    for watch in plan.watches:
        _need(watch.epoll in epolls and watch.fd in known, "a watch")
    memfds = {one.fd for one in plan.descriptors if one.kind == Kind.MEMFD}
    _need(all(one.descriptor in memfds for one in plan.files if one.flags & FileFlag.OF_MEMFD), "a mapped memfd")
    _need(all(one.other in {-1, *memfds} for one in plan.descriptors if one.fd in memfds), "a memfd of another")
    files = {one.fd for one in plan.descriptors if one.kind == Kind.OPEN}
    kinds = {LockKind.FLOCK, LockKind.POSIX, LockKind.OFD}
    for lock in plan.locks:
        _need(lock.fd in files and lock.kind in kinds and lock.is_exclusive < 2, "a lock")
        _need(lock.kind != LockKind.FLOCK or not (lock.start or lock.length), "a lock")
