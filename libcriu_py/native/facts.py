"""
The facts that a dump writes down while all threads stand still (csrc/native/facts.c, memory.c).

They are records: a name and a size in decimal on a line, as many bytes, and the end of the line. Numbers in them are
hexadecimal, without 0x, and separated by spaces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_FORMAT = b"1"
_ONCE = ("format", "ids", "resume", "slot", "scratch", "xsave", "clocks", "auxv", "status", "stat")
"""Records that there must be, and once."""
_OPTIONAL = ("timers", "cannot_compare", "children", "unforkable", "timer_thread")
_OF_OPEN = {"socket": "options", "listener": "listener", "address": "address", "queued": "content", "memfd": "memory"}
"""Records that follow a descriptor, and the fields of `Open` that have them."""


class FactsError(ValueError):
    """The facts are damaged, or of another version."""


class NotEligible(Exception):
    """
    A process that cannot be dumped without criu.

    Attributes:
        reason: Why, as a predicate: "has a child process".
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NotNow(NotEligible):
    """A process that can perhaps be dumped in a moment."""


class Thread(NamedTuple):
    """A thread that stands still."""

    tid: int
    interrupted_at: int
    """The address of the instruction that it goes on with."""
    pending: int
    """Signals that are pending for it, as a mask."""
    gs: int
    holds_robust: int
    """Whether it holds a robust mutex."""
    name: bytes


class Open(NamedTuple):
    """An open descriptor."""

    fd: int
    mode: int
    rdev: int
    dev: int
    inode: int
    size: int
    mtime_ns: int
    flags: int
    """As of F_GETFL."""
    close_on_exec: int
    position: int
    queued: int
    """Bytes that a read would find in a pipe or socket."""
    domain: int
    type: int
    protocol: int
    accepting: int
    link: bytes
    """Where /proc/self/fd leads."""
    info: bytes
    """/proc/self/fdinfo."""
    options: tuple[int, ...] | None
    """Of a socket: SO_RCVTIMEO and SO_SNDTIMEO in us, SO_RCVBUF, SO_SNDBUF, SO_PASSCRED."""
    listener: tuple[int, ...] | None
    """Of a listening one: backlog, waiting connections, options as in csrc/common/plan.h, whether it has others."""
    address: bytes
    content: bytes
    """What is queued in a pipe, or in a stream of bytes, if all of it could be had."""
    memory: tuple[int, ...] | None
    """Of a memfd: where its content is in `memory.img`, and its seals."""


class Saved(NamedTuple):
    """A range of memory whose content is in `memory.img`."""

    start: int
    end: int
    offset: int


class Timer(NamedTuple):
    """A timer of timer_create(2)."""

    id: int
    clock: int
    """As 32 bits without a sign."""
    signal: int
    notify: int
    """SIGEV_*."""
    thread: int
    """Or the process."""
    value: int
    pending: int
    """Signals that are pending for that thread, as a mask."""


class Facts(NamedTuple):
    """All of them."""

    original: int
    standing: int
    """The process whose memory stays as it was dumped: the original, or a twin of it."""
    resume: int
    stack: int
    fs: int
    slot: int
    scratch: tuple[int, int]
    xcr0: int
    components: tuple[tuple[int, int, int], ...]
    """XSAVE components: number, offset, size."""
    monotonic: int
    boottime: int
    auxv: bytes
    status: dict[str, str]
    stat: tuple[str, ...]
    """The fields behind the name, the state first."""
    timers: bytes
    """/proc/self/timers."""
    noted_timers: tuple[Timer, ...]
    """Those of them that copies have."""
    is_timer_thread_known: bool
    children: tuple[int, ...] | None
    """None where nobody looked."""
    threads: tuple[Thread, ...]
    descriptors: tuple[Open, ...]
    same: tuple[tuple[int, int], ...]
    """Pairs of descriptors that share one open file description."""
    can_compare: bool
    is_forkable: bool
    """Whether a fork keeps all memory."""
    held: tuple[tuple[int, ...], ...]
    """Mutexes that a thread holds by its id: address, thread, kind."""
    areas: tuple[Saved, ...]
    """Whole areas with content, by address."""
    runs: tuple[Saved, ...]
    """The parts of them that were written, by address; the rest is holes."""
    inherited: frozenset[int] = frozenset()
    """Descriptors that the process was started with."""

    def with_inherited(self, noted: Iterable[Sequence[int]]) -> Facts:
        """
        Return the same facts and what the process was started with.

        Args:
            noted: Number, device and inode of descriptors.
        """
        there = {(one.fd, one.dev, one.inode) for one in self.descriptors if not one.close_on_exec}
        return self._replace(inherited=frozenset(fd for fd, *identity in noted if (fd, *identity) in there))


def parse(data: bytes) -> Facts:
    """
    Read facts.

    Args:
        data: The content of their file.

    Raises:
        FactsError: Something is missing, unknown or damaged.
    """
    try:
        return _parse(data)
    except (ValueError, IndexError, TypeError) as error:
        message = f"what the dump wrote down cannot be understood ({error})"
        raise FactsError(message) from None


def _records(data: bytes) -> Iterator[tuple[str, bytes]]:
    at = 0
    while at < len(data):
        end = data.index(b"\n", at)
        name, _, size = data[at:end].decode("ascii").partition(" ")
        at = end + 1 + int(size)
        if data[at : at + 1] != b"\n":
            message = f"{name} is cut off"
            raise FactsError(message)
        yield name, data[end + 1 : at]
        at += 1


def _numbers(data: bytes) -> tuple[int, ...]:
    return tuple([int(word, 16) for word in data.split()])


def _parse(data: bytes) -> Facts:
    once: dict[str, bytes] = {}
    lists: dict[str, list[bytes]] = {"thread": [], "same": [], "area": [], "run": [], "held": [], "timer": []}
    descriptors: list[Open] = []
    described: bytes | None = None
    for name, value in _records(data):
        if (described is not None) != (name == "fdinfo"):
            message = "a descriptor without information"
            raise FactsError(message)
        if name == "fd":
            described = value
        elif described is not None:
            *numbers, link = described.split(b" ", 15)
            descriptors.append(
                Open._make((*[int(word, 16) for word in numbers], link, value, None, None, b"", b"", None))
            )
            described = None
        elif name in _OF_OPEN:
            descriptors[-1] = descriptors[-1]._replace(**_more(name, value))
        elif name in lists:
            lists[name].append(value)
        elif name in {*_ONCE, *_OPTIONAL} and name not in once:
            once[name] = value
        else:
            message = f"the record {name}"
            raise FactsError(message)
    missing = [name for name in _ONCE if name not in once]
    if missing or described is not None or once["format"] != _FORMAT:
        message = f"{', '.join(missing) or 'the end'} is missing, or the format is another"
        raise FactsError(message)
    return _facts(once, lists, descriptors)


def _more(name: str, value: bytes) -> dict[str, Any]:
    field = _OF_OPEN[name]
    return {field: _numbers(value) if field in {"options", "listener", "memory"} else value}


def _facts(once: dict[str, bytes], lists: dict[str, list[bytes]], descriptors: Sequence[Open]) -> Facts:
    original, standing = _numbers(once["ids"])
    resume, stack, fs = _numbers(once["resume"])
    start, end = _numbers(once["scratch"])
    monotonic, boottime = _numbers(once["clocks"])
    xcr0, *components = _numbers(once["xsave"])
    status = once["status"].decode("utf-8", "replace")
    children = once.get("children")
    return Facts(
        original=original,
        standing=standing,
        resume=resume,
        stack=stack,
        fs=fs,
        slot=_numbers(once["slot"])[0],
        scratch=(start, end),
        xcr0=xcr0,
        components=tuple(zip(components[::3], components[1::3], components[2::3], strict=True)),
        monotonic=monotonic,
        boottime=boottime,
        auxv=once["auxv"],
        status={name: value.strip() for name, _, value in (line.partition(":") for line in status.splitlines())},
        stat=tuple(once["stat"].rpartition(b")")[2].decode("ascii").split()),
        timers=once.get("timers", b""),
        noted_timers=tuple([Timer(*_numbers(value)) for value in lists["timer"]]),
        is_timer_thread_known="timer_thread" not in once,
        children=None if children is None else tuple(map(int, children.split())),
        threads=tuple([_thread(value) for value in lists["thread"]]),
        descriptors=tuple(descriptors),
        same=tuple([(first, second) for first, second in map(_numbers, lists["same"])]),
        held=tuple(map(_numbers, lists["held"])),
        is_forkable="unforkable" not in once,
        can_compare=once.get("cannot_compare", b"0") == b"0",
        areas=tuple(sorted([Saved(*_numbers(value)) for value in lists["area"]])),
        runs=tuple(sorted([Saved(*_numbers(value)) for value in lists["run"]])),
    )


def _thread(value: bytes) -> Thread:
    tid, interrupted_at, pending, gs, robust, name = value.split(b" ", 5)
    return Thread._make((*[int(word, 16) for word in (tid, interrupted_at, pending, gs, robust)], name))
