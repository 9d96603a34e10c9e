"""
The open descriptors of a plan.

What is not known completely is refused by name: a copy without it, or with another, would be a wrong one. What the
process was started with and leads out of it is not in the plan: there a copy has its caller's, as any started program.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from libcriu_py.native.facts import NotEligible
from libcriu_py.native.kinds import (
    is_locked_by_another,
    locks,
    of_eventfd,
    of_listener,
    of_memfd,
    of_pipe,
    of_signalfd,
    of_timerfd,
    of_unix_listener,
    options_of_new,
    watches,
)
from libcriu_py.native.plan import ANY_SIZE, Descriptor, Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from libcriu_py.findings.sockets import Bound
    from libcriu_py.native.facts import Facts, Open
    from libcriu_py.native.plan import Lock, Watch

_STDIO = range(3)
_UNIX = 1
_DEVICES = frozenset(os.makedev(*numbers) for numbers in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0)))
"""null, zero, full, random, urandom, tty."""
_TERMINALS = range(136, 144)
"""Major numbers of pseudoterminals."""
_O_LARGEFILE, _O_ASYNC = 0o100000, 0o20000
_PLAIN = ~(os.O_CLOEXEC | _O_LARGEFILE)
_SHUT = "shut down"
_ANONYMOUS = b"anon_inode:"


class Descriptors:
    """
    Those of a process that stands still.

    Raises:
        NotEligible: One is of a kind that a plan cannot have.
    """

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known = {one.fd: one for one in facts.descriptors}
        self._first = _groups(facts)
        self._rows: dict[int, Descriptor] = {}
        self._sockets: _Sockets | None = None

    def rows(self) -> tuple[Descriptor, ...]:
        """Return the rows of the plan, in the order in which they are made."""
        _refuse_incomparable(self._facts)
        duplicates: list[Descriptor] = []
        rows: list[Descriptor] = []
        for fd in sorted(self._known):
            one, first = self._known[fd], self._first.get(fd, fd)
            if fd in _STDIO or fd in self._rows or self._is_of_caller(one):
                continue
            if first != fd:
                if first == self._facts.slot or first not in self._known or fd == self._facts.slot:
                    raise NotEligible(f"has a second descriptor of what only the dump uses ({fd})")
                duplicates.append(Descriptor(fd, Kind.DUPLICATE, other=first, close_on_exec=one.close_on_exec))
                continue
            for row in self._made(one):
                self._rows[row.fd] = row
                rows.append(row)
        return (*rows, *duplicates)

    def watches(self) -> tuple[Watch, ...]:
        """Return what epoll descriptors watch."""
        facts = self._facts
        there = {fd: one for fd, one in self._known.items() if fd not in _STDIO and fd != facts.slot}
        allowed = {fd: one for fd, one in there.items() if not self._is_of_caller(one)}
        epolls = [row.fd for row in self._rows.values() if row.kind == Kind.EPOLL]
        return tuple(watch for fd in epolls for watch in watches(self._known[fd], allowed))

    def _made(self, one: Open) -> Iterator[Descriptor]:
        if one.fd == self._facts.slot:
            yield Descriptor(one.fd, Kind.REQUEST, close_on_exec=one.close_on_exec)
            return
        if one.flags & _O_ASYNC:
            raise NotEligible(f"has a descriptor with O_ASYNC ({one.fd})")
        if one.link.startswith(b"socket:"):
            yield from self._socket(one)
        elif one.link.startswith(b"pipe:"):
            yield from self._pipe(one)
        elif one.link.startswith(_ANONYMOUS):
            yield self._anonymous(one)
        else:
            yield self._with_path(one)

    def _is_of_caller(self, one: Open) -> bool:
        """Return whether a descriptor is one of the start, all its duplicates too, and leads out of the process."""
        inherited, first = self._facts.inherited, self._first.get(one.fd, one.fd)
        if one.fd not in inherited or any(self._first.get(fd, fd) == first for fd in self._known.keys() - inherited):
            return False
        if one.link.startswith(b"pipe:"):
            return all(other.fd in {*inherited, *_STDIO} for other in self._known.values() if other.link == one.link)
        if one.link.startswith(b"socket:"):
            return one.domain == _UNIX and self._peer(one) is None and self._of_kernel().is_of_pair(one)
        if stat.S_ISREG(one.mode) or stat.S_ISDIR(one.mode):
            return is_locked_by_another(one, self._facts.original)
        return stat.S_ISFIFO(one.mode) or (stat.S_ISCHR(one.mode) and os.major(one.rdev) in _TERMINALS)

    def locks(self) -> tuple[Lock, ...]:
        """Return the locks of files, which copies take anew."""
        rows = [row for row in self._rows.values() if row.kind == Kind.OPEN]
        return tuple(lock for row in rows for lock in locks(self._known[row.fd]))

    # ---- kinds -------------------------------------------------------------

    def _with_path(self, one: Open) -> Descriptor:
        name = _name(one)
        form = stat.S_IFMT(one.mode)
        if one.link.startswith(b"/memfd:"):
            same = (row.fd for row in self._rows.values() if row.kind == Kind.MEMFD and row.other < 0)
            return of_memfd(one, next((fd for fd in same if self._known[fd].inode == one.inode), -1))
        if form == stat.S_IFCHR and one.rdev not in _DEVICES:
            raise NotEligible(f"has a device open ({name}, descriptor {one.fd})")
        if form not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR} or not one.link.startswith(b"/"):
            raise NotEligible(f"has {name} open (descriptor {one.fd})")
        if _is_of_process(one.link):
            raise NotEligible(f"has a file of a process open ({name}, descriptor {one.fd})")
        try:
            status = os.stat(one.link)
        except OSError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != (one.dev, one.inode):
            raise NotEligible(f"has a file open that was deleted or replaced ({name}, descriptor {one.fd})")
        return Descriptor(
            *(one.fd, Kind.OPEN, one.flags & _PLAIN),
            close_on_exec=one.close_on_exec,
            form=form,
            value=0 if form == stat.S_IFCHR else one.position,
            other_offset=one.size if form == stat.S_IFREG else ANY_SIZE,
            data=one.link,
        )

    def _anonymous(self, one: Open) -> Descriptor:
        name = one.link.removeprefix(_ANONYMOUS)
        row = Descriptor(one.fd, Kind.EPOLL, one.flags & os.O_NONBLOCK, close_on_exec=one.close_on_exec)
        if name == b"[eventpoll]":
            return row
        if name == b"[eventfd]":
            return of_eventfd(one, row)
        if name == b"[timerfd]":
            return of_timerfd(one, row)
        if name == b"[signalfd]":
            return of_signalfd(one, row)
        raise NotEligible(f"has a kernel object that is not known ({_name(one)}, descriptor {one.fd})")

    def _pipe(self, one: Open) -> Iterator[Descriptor]:
        ends = [
            other
            for fd, other in sorted(self._known.items())
            if other.link == one.link and self._first.get(fd, fd) == fd
        ]
        if any(end.fd in _STDIO for end in ends):
            raise NotEligible(f"has a pipe that is a standard stream, too (descriptor {one.fd})")
        yield from of_pipe(self._facts.standing, ends)

    def _socket(self, one: Open) -> Iterator[Descriptor]:
        if one.accepting:
            yield of_unix_listener(one, self._of_kernel().bound[one.inode]) if one.domain == _UNIX else of_listener(one)
            return
        if one.domain != _UNIX:
            raise NotEligible(f"has a socket of family {one.domain} (descriptor {one.fd})")
        end = self._peer(one)
        if end is None or end.fd in _STDIO:
            raise NotEligible(f"holds a socket that is not connected inside the process (descriptor {one.fd})")
        for either in (one, end):
            if len(either.content) != either.queued:
                raise NotEligible(f"has data in a socket (descriptor {either.fd})")
            if not self._of_kernel().is_plain(either):
                raise NotEligible(f"has a socket with options, a name or a closed side (descriptor {either.fd})")
        for this, that, kind, value in (
            (one, end, Kind.SOCKET_PAIR, one.type),
            (end, one, Kind.OTHER_END, 0),
        ):
            flags = this.flags & os.O_NONBLOCK
            yield Descriptor(this.fd, kind, flags, that.fd, this.close_on_exec, value=value, data=this.content)

    def _of_kernel(self) -> _Sockets:
        self._sockets = self._sockets or _Sockets()
        return self._sockets

    def _peer(self, one: Open) -> Open | None:
        """Return the lowest descriptor of the other end of a pair; None where that is not in the process."""
        peers = self._of_kernel().peers
        peer = peers.get(one.inode, 0)
        ends = [other for other in self._known.values() if other.inode == peer and other.link.startswith(b"socket:")]
        ends = [end for end in ends if self._first.get(end.fd, end.fd) == end.fd]
        return ends[0] if peer and len(ends) == 1 and peers.get(peer) == one.inode else None


class _Sockets:
    """What the kernel tells of UNIX sockets."""

    def __init__(self) -> None:
        from libcriu_py.findings.sockets import unix_peers

        self._odd: set[int] = set()
        self.bound: dict[int, Bound] = {}
        self.peers = unix_peers(self._odd, self.bound)
        self._options = options_of_new(_UNIX)

    def is_of_pair(self, one: Open) -> bool:
        """Return whether a socket is an end of socketpair(2), not connected to a name, as a library's may be."""
        peer = self.peers.get(one.inode, 0)
        return peer != 0 and one.inode not in self._odd and peer not in self._odd

    def is_plain(self, one: Open) -> bool:
        """Return whether a socket is as socketpair(2) makes it."""
        return one.inode not in self._odd and one.options == self._options


def _name(one: Open) -> str:
    return os.fsdecode(one.link).removesuffix(" (deleted)")


def _is_of_process(link: bytes) -> bool:
    first, second, *_ = (*link.split(b"/")[1:], b"", b"")
    return first == b"proc" and second.isdigit()


def _groups(facts: Facts) -> dict[int, int]:
    """Return the lowest descriptor with the same open file description, for each that is not it."""
    first: dict[int, int] = {}
    for low, high in sorted(facts.same):
        lowest = first.get(low, low)
        first[high] = min(lowest, first.get(high, lowest))
    return first


def _refuse_incomparable(facts: Facts) -> None:
    """Refuse descriptors that may or may not share one open file description, where the kernel does not tell."""
    if facts.can_compare:
        return
    seen: dict[tuple[int, ...], int] = {}
    for one in facts.descriptors:
        key = one.dev, one.inode, one.rdev, one.flags & _PLAIN, one.position
        is_file = not one.link.startswith((b"anon_inode:", b"socket:"))
        if is_file and key in seen:
            message = f"may have two descriptors of one open file ({_name(one)}, descriptors {seen[key]} and {one.fd})"
            raise NotEligible(message)
        seen[key] = one.fd


def find(facts: Facts) -> tuple[Sequence[Descriptor], Sequence[Watch], Sequence[Lock]]:
    """
    Return the descriptors of a plan, what those of epoll watch, and the locks of files.

    Args:
        facts: What the dump wrote down.

    Raises:
        NotEligible: One is of a kind that a plan cannot have.
    """
    found = Descriptors(facts)
    return found.rows(), found.watches(), found.locks()
