"""Compare the descriptors of a plan with those of the process that stands still."""

from __future__ import annotations

import fcntl
import os
import re
import stat
from typing import TYPE_CHECKING

from libcriu_py.native.plan import LISTENER, MEMORY, TIMER, Kind

if TYPE_CHECKING:
    from collections.abc import Collection

    from libcriu_py.native.facts import Facts
    from libcriu_py.native.plan import Descriptor, Plan

_O_LARGEFILE = 0o100000
_LINKS = {
    Kind.SOCKET_PAIR: rb"socket:\[\d+\]",
    Kind.LISTENER: rb"socket:\[\d+\]",
    Kind.PIPE: rb"pipe:\[\d+\]",
    Kind.OTHER_END: rb"(socket|pipe):\[\d+\]",
    Kind.EPOLL: rb"anon_inode:\[eventpoll\]",
    Kind.EVENTFD: rb"anon_inode:\[eventfd\]",
    Kind.TIMERFD: rb"anon_inode:\[timerfd\]",
    Kind.SIGNALFD: rb"anon_inode:\[signalfd\]",
}
_EVENTFD_SEMAPHORE = 1
_UNIX = 1
_F_GET_SEALS = 1034
_BLOCK = 1 << 20


class Differs(Exception):
    """The plan is not the process."""


class _Fd:
    """An open descriptor of the process."""

    def __init__(self, pid: int, fd: int) -> None:
        self.link = os.readlink(b"/proc/%d/fd/%d" % (pid, fd))
        with open(f"/proc/{pid}/fdinfo/{fd}", "rb", buffering=0) as file:
            self.info = file.readall()
        status = os.stat(f"/proc/{pid}/fd/{fd}")
        self.mode, self.inode = status.st_mode, status.st_ino
        self.position = int(self._field(rb"pos", rb"(\d+)"))
        self.flags = int(self._field(rb"flags", rb"([0-7]+)"), 8)

    def _field(self, name: bytes, pattern: bytes) -> bytes:
        found = re.search(rb"^" + name + rb":\s*" + pattern + rb"$", self.info, re.MULTILINE)
        return found[1] if found else b"0"

    def number(self, name: bytes, base: int = 10) -> int:
        """Return a number of /proc/PID/fdinfo."""
        return int(self._field(name, rb"([0-9a-f]+)"), base)

    def times(self) -> tuple[int, int]:
        """Return value and interval of a timerfd in ns."""
        pairs = [self._field(name, rb"\((\d+, \d+)\)").split(b", ") for name in (b"it_value", b"it_interval")]
        value, interval = (int(pair[0]) * 10**9 + int(pair[-1]) for pair in pairs)
        return value, interval

    def unix_name(self) -> bytes:
        """Return the name of a UNIX socket that listens; the kernel has `@` for each NUL."""
        pattern = rb"^\w+: \w+ \w+ 00010000 \w+ \w+ +%d (.*)$" % self.inode
        with open("/proc/self/net/unix", "rb") as file:
            found = re.search(pattern, file.read(), re.MULTILINE)
        return found[1] if found else b""

    def locks(self) -> set[tuple[int, int, int, int]]:
        """Return the locks of an open file: kind, whether it excludes others, where it begins, and its length."""
        found = set()
        for line in self.info.split(b"\n"):
            if line.startswith(b"lock:"):
                kind, _, access, *_, start, end = line.split()[2:]
                length = 0 if end == b"EOF" else int(end) + 1 - int(start)
                number = (b"", b"FLOCK", b"POSIX", b"OFDLCK").index(kind)
                found.add((number, int(access == b"WRITE"), int(start), length))
        return found

    def watched(self) -> set[tuple[int, int, int]]:
        """Return what an epoll descriptor watches."""
        found = re.findall(rb"^tfd: *(\d+) events: *(\w+) data: *(\w+) ", self.info, re.MULTILINE)
        return {(int(fd), int(events, 16), int(data, 16)) for fd, events, data in found}


def compare_descriptors(plan: Plan, facts: Facts, image: int, ours: Collection[int]) -> None:
    """
    Compare all descriptors above 2.

    Args:
        plan: The plan.
        facts: Which process it is, and what it was started with.
        image: `memory.img`, open for reading.
        ours: Open files that copies do not have, as descriptors of this process.

    Raises:
        Differs: A copy would have others.
    """
    pid = facts.standing
    hidden = {_identity(os.fstat(fd)) for fd in ours}
    there = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        fd = int(name)
        one = _Fd(pid, fd)
        # The process waits for our parent, and so for us, by a descriptor.
        is_wait = one.link == b"anon_inode:[pidfd]" and one.number(b"Pid") == os.getppid()
        if not is_wait and _identity(os.stat(f"/proc/{pid}/fd/{fd}")) not in hidden:
            there[fd] = one
    rows = {row.fd: row for row in plan.descriptors}
    left = {fd for fd in facts.inherited - rows.keys() if fd in there and _may_be_of_caller(there[fd])}
    others = {fd for fd in there if fd > 2} - left ^ rows.keys()
    if others:
        raise Differs(f"descriptor {min(others)} is in one of plan and process only")
    for row in plan.descriptors:
        why = _difference(row, there, rows, plan)
        if why is not None:
            raise Differs(f"descriptor {row.fd} differs: {why}")
    if pid == facts.original:  # with what a twin shares, the original goes on
        _compare_locks(plan, there)
        for row in (row for row in plan.descriptors if row.kind == Kind.MEMFD):
            _compare_memory(row, pid, image)


def _is_same_memory(row: Descriptor, there: dict[int, _Fd]) -> bool:
    one = there[row.fd]
    name = b"/memfd:" + row.data[MEMORY.size :] + b" (deleted)"
    return (name, row.value) == (one.link, one.position) and there.get(row.other, one).inode == one.inode


def _is_same_file(row: Descriptor, there: dict[int, _Fd]) -> bool:
    one = there[row.fd]
    return (row.data, row.value) == (one.link, one.position) or (row.form == 0o020000 and row.data == one.link)


def _compare_memory(row: Descriptor, pid: int, image: int) -> None:
    """Compare the content, the permissions and the seals of a memfd."""
    size, offset, mode, seals = MEMORY.unpack_from(row.data)
    fd = os.open(f"/proc/{pid}/fd/{row.fd}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (size, mode, seals) != (status.st_size, stat.S_IMODE(status.st_mode), fcntl.fcntl(fd, _F_GET_SEALS)):
            raise Differs(f"the memory of descriptor {row.fd} has another size, other permissions or other seals")
        for at in range(0, size, _BLOCK):
            length = min(_BLOCK, size - at)
            if os.pread(fd, length, at) != os.pread(image, length, offset + at):
                raise Differs(f"the memory of descriptor {row.fd} has other content")
    finally:
        os.close(fd)


def _compare_locks(plan: Plan, there: dict[int, _Fd]) -> None:
    duplicates = {row.fd for row in plan.descriptors if row.kind == Kind.DUPLICATE}
    for row in plan.descriptors:
        found = {(lock.kind, lock.is_exclusive, lock.start, lock.length) for lock in plan.locks if lock.fd == row.fd}
        if row.fd not in duplicates and found != there[row.fd].locks():
            raise Differs(f"the locks of descriptor {row.fd} are others")


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _may_be_of_caller(one: _Fd) -> bool:
    """Return whether a copy may have its caller's descriptor in the place of one: that leads out of the process."""
    if b"\nlock:" in one.info:
        return not one.flags & os.O_CLOEXEC
    leads_out = stat.S_ISFIFO(one.mode) or stat.S_ISSOCK(one.mode) or one.link.startswith(b"/dev/pts/")
    return leads_out and not one.flags & os.O_CLOEXEC


def _difference(row: Descriptor, there: dict[int, _Fd], rows: dict[int, Descriptor], plan: Plan) -> str | None:
    one = there[row.fd]
    if bool(one.flags & os.O_CLOEXEC) != bool(row.close_on_exec):
        return "it is closed by exec or is not"
    if row.kind in {Kind.REQUEST, Kind.DUPLICATE}:
        same = one if row.kind == Kind.REQUEST else there.get(row.other)
        is_same = same is not None and (same.link, same.position) == (one.link, one.position)
        return None if is_same else f"it is no duplicate of {row.other}"
    flags = one.flags & ~(os.O_CLOEXEC | _O_LARGEFILE)
    if row.kind in {Kind.OPEN, Kind.MEMFD}:
        is_same = row.flags == flags and (_is_same_memory if row.kind == Kind.MEMFD else _is_same_file)(row, there)
        return None if is_same else "another file, another position or other flags"
    if not re.fullmatch(_LINKS.get(row.kind, b"(?!)"), one.link):
        return f"it is {os.fsdecode(one.link)}"
    asked = row.flags & ~(_EVENTFD_SEMAPHORE if row.kind == Kind.EVENTFD else 0)
    if asked != flags & ~os.O_ACCMODE:
        return "other flags"
    return _difference_of_state(row, there, rows, plan)


def _difference_of_state(row: Descriptor, there: dict[int, _Fd], rows: dict[int, Descriptor], plan: Plan) -> str | None:
    one = there[row.fd]
    found: object = None
    wanted: object = None
    if row.kind in {Kind.PIPE, Kind.OTHER_END} and one.link.startswith(b"pipe:"):
        is_reading = one.flags & os.O_ACCMODE == os.O_RDONLY
        found = there[row.other].link, is_reading, rows[row.other].other if row.kind == Kind.OTHER_END else row.other
        wanted = one.link, row.kind == Kind.PIPE, row.fd if row.kind == Kind.OTHER_END else row.other
    elif row.kind == Kind.LISTENER and row.value >> 32 == _UNIX:
        name = row.data[LISTENER.size + 2 :]
        found, wanted = (name.rstrip(b"\0") if name[0] else name.replace(b"\0", b"@")), one.unix_name()
    elif row.kind == Kind.EPOLL:
        found = {(watch.fd, watch.events, watch.data) for watch in plan.watches if watch.epoll == row.fd}
        wanted = one.watched()
    elif row.kind == Kind.EVENTFD:
        found = row.value, row.flags & _EVENTFD_SEMAPHORE
        wanted = one.number(b"eventfd-count", 16), one.number(b"eventfd-semaphore")
    elif row.kind == Kind.SIGNALFD:
        found, wanted = row.value, one.number(b"sigmask", 16)
    elif row.kind == Kind.TIMERFD:
        value, interval, _ = TIMER.unpack(row.data)
        # Its time has gone on since the dump.
        found, wanted = (row.value, interval, bool(value)), (one.number(b"clockid"), one.times()[1], bool(value))
    return None if found == wanted else f"{found} is not {wanted}"
