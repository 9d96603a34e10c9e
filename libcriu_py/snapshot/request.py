"""
What a restored process is given by the process that restores it.

The restoring side is here, `libcriu_py.dump.arrival` is the other. The dumped process has four *slots* open:
placeholder files at descriptors 0, 1, 2 and at one more, the *request*. On restore, criu puts descriptors of the
restoring side in their place (`--inherit-fd`). That of the request is a SOCK_SEQPACKET socket:

1. restoring side to restored process: one message with the descriptors of the request (a memfd) and of
   whatever else it passes on (libcriu-py-run sends it before the restore, and takes it back where that fails);
2. back: `S` when the request has been applied and the program's own code is about to run, or `E` and
   a text when that failed; then `R` when the after-hooks are through.

The request is a sequence of fields, each with a NUL behind it, which none can have within. A copy reads it in one step:
what it would touch to read JSON costs it a millisecond.
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import RestoreError
from libcriu_py.linux import sockets
from libcriu_py.linux.files import status
from libcriu_py.program.main import Program
from libcriu_py.snapshot.record import PROTOCOL

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PROTOCOL = b"%d " % PROTOCOL
_FIELDS = 16
"""How many there are before the arguments."""

PAGES = b"P"
"""Tag of a message that may come before the request, and more than once: a file of pages to fetch (copy/pages.c)."""

STARTED = b"S"
READY = b"R"
ERROR = b"E"


class Request(NamedTuple):
    """What the restoring side asks for."""

    argv: list[bytes]
    """Arguments, without the program's name."""
    env: dict[bytes, bytes]
    cwd: bytes
    umask: int
    launched: float
    """Wall-clock time at which the restore was asked for, in seconds since 1970."""
    snapshot: str
    """The snapshot's directory, as the restoring side sees it."""
    main: Program | None = None
    """What is to run instead of the program's own main module."""
    closed: list[int] = []  # noqa: RUF012 - never changed
    """Those of descriptors 0 to 2 that the restoring side had closed."""
    pass_fds: list[int] = []  # noqa: RUF012
    """The numbers under which the passed descriptors are to be open."""
    pgid: int | None = None
    """The process group to join, where the process would be in one of its own."""
    ignored: list[int] = []  # noqa: RUF012
    """Signals that the restoring side ignores, as `nohup` makes its programs do."""
    limits: dict[int, tuple[int, int]] = {}  # noqa: RUF012
    """Soft and hard resource limits by number."""
    inherited: list[int] = []  # noqa: RUF012
    """
    Numbers of descriptors that the restoring side was itself started with, which come behind `pass_fds`. What the
    program has open under such a number stays.
    """
    schedule: tuple[int, int, int] = (0, 0, 0)
    """Niceness, scheduling policy and priority of the restoring side."""
    blocked: list[int] = []  # noqa: RUF012
    """Signals that the restoring side was started with blocked."""

    def encode(self) -> bytes:
        """
        Return the fields of the request.

        Raises:
            ValueError: There is a NUL in one, or no name before the value of a variable.
        """
        kind, value = self.main if self.main is not None else ("", "")
        limits = [number for name, pair in self.limits.items() for number in (name, *pair)]
        fields = [
            *map(_numbers, ([PROTOCOL], [self.umask])),
            repr(self.launched).encode("ascii"),
            *map(_numbers, ([self.pgid or 0], self.closed, self.pass_fds, self.ignored, limits, self.inherited)),
            *map(_numbers, (self.schedule if any(self.schedule) else (), self.blocked)),
            *map(os.fsencode, (kind, value)),
            self.cwd,
            os.fsencode(self.snapshot),
            _numbers([len(self.argv)]),
            *self.argv,
        ]
        for name, text in self.env.items():
            if b"=" in name:
                message = f"illegal environment variable name {os.fsdecode(name)!r}"
                raise ValueError(message)
            fields.append(name + b"=" + text)
        if any(b"\0" in field for field in fields):
            message = "embedded null byte in an argument, an environment variable or a path"
            raise ValueError(message)
        return b"\0".join(fields) + b"\0"

    @classmethod
    def decode(cls, text: bytes) -> Request:
        """
        Read the fields of a request.

        Raises:
            RestoreError: It is of another protocol.
            ValueError: It is damaged.
        """
        fields = text.split(b"\0")
        if fields[0] != _PROTOCOL:
            message = (
                f"the restoring side speaks another protocol than this snapshot, which speaks {PROTOCOL}: "
                "make the snapshot anew with the installed version of libcriu_py"
            )
            raise RestoreError(message)
        if len(fields) <= _FIELDS:
            message = "the request ends early"
            raise ValueError(message)
        _, umask, launched, pgid, closed, passed, ignored, limits, inherited, *rest = fields[:_FIELDS]
        schedule, blocked, kind, value, cwd, snapshot, count = rest
        end = _FIELDS + int(count)
        bounds = [*map(int, limits.split())]
        main: Any = Program(os.fsdecode(kind), os.fsdecode(value)) if kind else None  # type: ignore[arg-type]
        # By position, and with few comprehensions: names, and functions of their own, are pages that a copy writes to.
        return cls(
            fields[_FIELDS:end],
            dict([entry.split(b"=", 1) for entry in fields[end:-1]]),
            cwd,
            int(umask),
            float(launched),
            os.fsdecode(snapshot),
            main,
            [*map(int, closed.split())],
            [*map(int, passed.split())],
            int(pgid) or None,
            [*map(int, ignored.split())],
            dict(zip(bounds[::3], zip(bounds[1::3], bounds[2::3], strict=True), strict=True)),
            [*map(int, inherited.split())],
            (*map(int, schedule.split()),) if schedule else (0, 0, 0),  # type: ignore[arg-type]
            [*map(int, blocked.split())],
        )


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"".join([b"%d " % number for number in numbers])


def current_limits() -> dict[int, tuple[int, int]]:
    """Return the resource limits of this process."""
    numbers = {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
    return {number: resource.getrlimit(number) for number in sorted(numbers)}


def ignored_signals() -> list[int]:
    """Return the signals that this process ignores, but those that it ignores by itself."""
    import signal

    others = {signal.SIGPIPE, signal.SIGXFSZ, 32, 33}  # Python's own, and those that glibc keeps for its threads
    mask = int(status()["SigIgn"], 16)
    return [number for number in range(1, 65) if mask >> (number - 1) & 1 and number not in others]


def blocked_signals() -> list[int]:
    """Return the signals that this thread blocks."""
    import signal

    return sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))


def check_count(pass_fds: Sequence[int]) -> None:
    """
    Refuse more descriptors than one message takes.

    Raises:
        ValueError: There are too many.
    """
    if len(pass_fds) >= sockets.MAX_FDS:
        message = f"{len(pass_fds)} descriptors in pass_fds; at most {sockets.MAX_FDS - 1} can be passed"
        raise ValueError(message)


def send_request(control: int, request: Request, pass_fds: Sequence[int]) -> None:
    """
    Send a restored process its request; one that has ended already misses nothing.

    Args:
        control: The restoring side's end of the socket whose other end is in the request's slot.
        request: What is asked for.
        pass_fds: The descriptors to pass, in the order of `request.pass_fds`; those of `request.inherited` follow.
    """
    memory = os.memfd_create("libcriu_py-request", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(request.encode())
        sockets.send_fds(control, [memory, *pass_fds, *request.inherited])
    except BrokenPipeError:
        return  # its end is told by its supervisor
    finally:
        os.close(memory)
