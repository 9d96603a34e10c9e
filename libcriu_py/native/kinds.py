"""Pipes and the kernel's other objects behind descriptors, from what /proc/PID/fdinfo says of them."""

from __future__ import annotations

import fcntl
import os
import re
import select
from typing import TYPE_CHECKING

from libcriu_py.native.facts import NotEligible
from libcriu_py.native.plan import LISTENER, MEMORY, TIMER, Descriptor, Kind, Lock, LockKind, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from libcriu_py.findings.sockets import Bound
    from libcriu_py.native.facts import Open

_F_GETPIPE_SZ = 1032
_O_DIRECT = 0o40000
_O_LARGEFILE = 0o100000
_OF_MEMFD = os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND | _O_LARGEFILE
_ENDS = (os.O_RDONLY, os.O_WRONLY)
_ALWAYS = select.EPOLLERR | select.EPOLLHUP
_MONOTONIC, _BOOTTIME = 1, 7
_TFD_ABSTIME, _TFD_CANCEL_ON_SET = 1, 2
_WATCH = re.compile(
    rb"^tfd: +(\d+) events: +([0-9a-f]+) data: +([0-9a-f]+) +pos:-?\d+ ino:([0-9a-f]+) sdev:", re.MULTILINE
)
_TIMER = re.compile(
    rb"^clockid: (\d+)\nticks: (\d+)\nsettime flags: 0?([0-7]+)\n"
    rb"it_value: \((\d+), (\d+)\)\nit_interval: \((\d+), (\d+)\)\n",
    re.MULTILINE,
)
_LOCK = re.compile(rb"lock:\t\d+: (FLOCK|POSIX|OFDLCK) +ADVISORY +(READ|WRITE) +-?\d+ \S+ (\d+) (\d+|EOF)$")
_LOCKS = {b"FLOCK": LockKind.FLOCK, b"POSIX": LockKind.POSIX, b"OFDLCK": LockKind.OFD}
_SECOND = 10**9
_INTERNET, _STREAM, _TCP = (2, 10), 1, 6


def is_locked_by_another(one: Open, pid: int) -> bool:
    """Return whether another process has locked an open file by flock(2), such as the command flock(1)."""
    found = [line.split() for line in one.info.splitlines() if line.startswith(b"lock:")]
    # Of a process that is not seen from here, nothing is told.
    return any(len(words) == 1 or (words[2] == b"FLOCK" and int(words[5]) != pid) for words in found)


def locks(one: Open) -> Iterator[Lock]:
    """
    Yield the locks of an open file.

    Raises:
        NotEligible: One is of a kind that is not known.
    """
    for line in one.info.splitlines():
        if not line.startswith(b"lock:"):
            continue
        found = _LOCK.match(line)
        if found is None or (found[1] == b"FLOCK" and (found[3], found[4]) != (b"0", b"EOF")):
            raise NotEligible(
                f"holds a lease, or a lock of an unknown kind ({os.fsdecode(one.link)}, descriptor {one.fd})"
            )
        name, access, start, end = found.groups()
        length = 0 if end == b"EOF" else int(end) - int(start) + 1
        yield Lock(one.fd, _LOCKS[name], int(access == b"WRITE"), int(start), length)


def of_eventfd(one: Open, row: Descriptor) -> Descriptor:
    """Return the row of an eventfd; the kernel tells since 6.6 whether it is a semaphore."""
    count = re.search(rb"^eventfd-count: *([0-9a-f]+)\n", one.info, re.MULTILINE)
    semaphore = re.search(rb"^eventfd-semaphore: *([01])\n", one.info, re.MULTILINE)
    if count is None or semaphore is None:
        raise NotEligible(f"has an eventfd of which this kernel does not tell enough (descriptor {one.fd})")
    return row._replace(kind=Kind.EVENTFD, value=int(count[1], 16), flags=row.flags | int(semaphore[1]))


def of_signalfd(one: Open, row: Descriptor) -> Descriptor:
    """Return the row of a signalfd."""
    mask = re.search(rb"^sigmask:\s*([0-9a-f]+)\n", one.info, re.MULTILINE)
    if mask is None:
        raise NotEligible(f"has a signalfd of which this kernel does not tell enough (descriptor {one.fd})")
    return row._replace(kind=Kind.SIGNALFD, value=int(mask[1], 16))


def of_timerfd(one: Open, row: Descriptor) -> Descriptor:
    """Return the row of a timerfd, whose time goes on from where it is."""
    found = _TIMER.search(one.info)
    if found is None:
        raise NotEligible(f"has a timerfd of which this kernel does not tell enough (descriptor {one.fd})")
    clock, ticks, *times = int(found[1]), int(found[2]), *map(int, found.groups()[3:])
    flags = int(found[3], 8)
    value, interval = (seconds * _SECOND + rest for seconds, rest in (times[:2], times[2:]))
    is_absolute = value and flags & _TFD_ABSTIME and clock not in {_MONOTONIC, _BOOTTIME}
    if is_absolute or flags & _TFD_CANCEL_ON_SET:
        raise NotEligible(f"has a timerfd that waits for a time of day (descriptor {one.fd})")
    return row._replace(kind=Kind.TIMERFD, value=clock, data=TIMER.pack(value, interval, ticks))


def of_memfd(one: Open, first: int) -> Descriptor:
    """
    Return the row of a memfd.

    Args:
        one: The descriptor.
        first: Another descriptor of the same memory that is made before, or -1.
    """
    name = one.link.removeprefix(b"/memfd:").removesuffix(b" (deleted)")
    if one.memory is None or one.flags & ~_OF_MEMFD or b"\nlock:" in one.info:
        raise NotEligible(
            f"has a memfd with huge pages, a lock or special flags ({os.fsdecode(name)}, descriptor {one.fd})"
        )
    offset, seals = one.memory
    return Descriptor(
        *(one.fd, Kind.MEMFD, one.flags & ~_O_LARGEFILE, first),
        close_on_exec=one.close_on_exec,
        value=one.position,
        data=MEMORY.pack(one.size, offset, one.mode & 0o7777, seals) + name,
    )


def watches(epoll: Open, allowed: Mapping[int, Open]) -> Iterator[Watch]:
    """
    Yield what an epoll descriptor watches.

    Args:
        epoll: The descriptor.
        allowed: What it may watch: descriptors that copies have.

    Raises:
        NotEligible: It watches what is not open any more, or a standard stream.
    """
    for line in epoll.info.splitlines():
        if not line.startswith(b"tfd:"):
            continue
        found = _WATCH.match(line)
        if found is None:
            raise NotEligible(f"has an epoll descriptor of which this kernel does not tell enough ({epoll.fd})")
        fd, events, data, inode = int(found[1]), *(int(text, 16) for text in found.groups()[1:])
        if fd not in allowed or allowed[fd].inode != inode:
            reason = f"watches what is not open any more, or a standard stream (descriptor {fd}, by epoll {epoll.fd})"
            raise NotEligible(reason)
        if events & _ALWAYS != _ALWAYS:
            raise NotEligible(f"has a watch that EPOLLONESHOT has ended (descriptor {fd}, by epoll {epoll.fd})")
        yield Watch(epoll.fd, fd, events, data)


def options_of_new(domain: int) -> tuple[int, ...]:
    """Return the options that a new stream socket has, in the order of `Open.options`; /proc/sys need not show them."""
    import _socket  # the C module: `socket` would import selectors and enum

    made = _socket.socket(domain, _socket.SOCK_STREAM)
    try:
        sizes = [made.getsockopt(_socket.SOL_SOCKET, option) for option in (_socket.SO_RCVBUF, _socket.SO_SNDBUF)]
    finally:
        made.close()
    return 0, 0, *sizes, 0


def of_listener(one: Open) -> Descriptor:
    """Return the row of a listening socket, which copies bind anew."""
    backlog, waiting, options, others = one.listener or (0, 0, 0, 1)
    if one.domain not in _INTERNET or one.type != _STREAM or one.protocol != _TCP or not one.address:
        raise NotEligible(f"has a listening socket that is not of TCP (descriptor {one.fd})")
    if waiting:
        raise NotEligible(f"has a connection that it has not accepted yet (descriptor {one.fd})")
    if others or one.options != options_of_new(one.domain):
        raise NotEligible(f"has a listening socket with special options (descriptor {one.fd})")
    return Descriptor(
        *(one.fd, Kind.LISTENER, one.flags & os.O_NONBLOCK),
        close_on_exec=one.close_on_exec,
        value=one.domain << 32 | one.type << 16 | one.protocol,
        data=LISTENER.pack(backlog, options) + one.address,
    )


def of_unix_listener(one: Open, bound: Bound) -> Descriptor:
    """
    Return the row of a listening UNIX socket, which copies bind anew.

    Args:
        one: The descriptor.
        bound: What the kernel tells of it.
    """
    _, _, options, others = one.listener or (0, 0, 0, 1)
    if bound.waiting:
        raise NotEligible(f"has a connection that it has not accepted yet (descriptor {one.fd})")
    if others or one.options != options_of_new(one.domain) or not one.address[2:]:
        raise NotEligible(f"has a listening socket with special options (descriptor {one.fd})")
    path, mode = one.address[2:].rstrip(b"\0"), 0
    if one.address[2]:
        try:
            status = os.stat(path)
        except OSError:
            status = None
        if path[:1] != b"/" or status is None or status.st_ino & 0xFFFFFFFF != bound.file:
            name = os.fsdecode(path)
            raise NotEligible(f"has a listening socket whose path is gone or relative ({name}, descriptor {one.fd})")
        mode = status.st_mode & 0o7777
    return Descriptor(
        *(one.fd, Kind.LISTENER, one.flags & os.O_NONBLOCK),
        close_on_exec=one.close_on_exec,
        value=one.domain << 32 | one.type << 16,
        other_offset=mode,
        data=LISTENER.pack(bound.backlog, options) + one.address,
    )


def of_pipe(standing: int, ends: Sequence[Open]) -> Iterator[Descriptor]:
    """
    Yield the rows of a pipe.

    Args:
        standing: The process that has it open.
        ends: Its ends there, one descriptor of each open file description.

    Raises:
        NotEligible: It leads out of the process, has data in it, or an end was opened twice.
    """
    fd = ends[0].fd
    by_mode = {end.flags & os.O_ACCMODE: end for end in ends}
    if len(by_mode) != len(ends) or os.O_RDWR in by_mode:
        raise NotEligible(f"has an end of a pipe that was opened again (descriptor {fd})")
    if len(ends) != len(_ENDS):
        raise NotEligible(f"has a pipe whose other end is not open in the process (descriptor {fd})")
    reading, writing = (by_mode[mode] for mode in _ENDS)
    if writing.flags & _O_DIRECT:
        raise NotEligible(f"has a pipe of packets (descriptor {fd})")
    if len(reading.content) != reading.queued:
        raise NotEligible(f"has much data in a pipe (descriptor {fd})")
    for end, kind, other, value in (
        (reading, Kind.PIPE, writing.fd, _capacity(standing, reading)),
        (writing, Kind.OTHER_END, reading.fd, 0),
    ):
        flags = end.flags & os.O_NONBLOCK
        yield Descriptor(end.fd, kind, flags, other, end.close_on_exec, value=value, data=end.content)


def _capacity(standing: int, end: Open) -> int:
    fd = os.open(f"/proc/{standing}/fd/{end.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return fcntl.fcntl(fd, _F_GETPIPE_SZ)
    finally:
        os.close(fd)
