"""
The request: what the restoring side hands to a restored process.

This is the restoring side; `libcriu_py.dump.arrival` is the other. The dumped process has four *slots* open:
placeholder files at descriptors 0, 1, 2, and one for the request. A restore replaces them with descriptors of the
restoring side (`--inherit-fd`). That for the request is a SOCK_SEQPACKET socket:

1. restoring side to copy: one message with the descriptor of the request (a memfd) and the descriptors to pass on
   (libcriu-py-run sends it before the restore, and takes it back if that fails);
2. copy to restoring side: `S` when the request has been applied and the program's code is about to run, or `E` and a
text
   if that failed; then `R` when the after-hooks have run.

The request is a sequence of NUL-terminated fields, which a copy reads in one step: reading JSON would touch so many
pages that it costs a millisecond.
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
"""The number of fields before the arguments."""

PAGES = b"P"
"""Tag of a message with a file of pages to fetch, of which several may precede the request (copy/pages.c)."""

STARTED = b"S"
READY = b"R"
ERROR = b"E"


class Request(NamedTuple):
    """What the restoring side asks for."""

    argv: list[bytes]
    """The arguments, without the program's name."""
    env: dict[bytes, bytes]
    cwd: bytes
    umask: int
    launched: float
    """When the restore was requested, by the wall clock, in seconds since 1970."""
    snapshot: str
    """The path of the snapshot on the restoring side."""
    main: Program | None = None
    """What to run instead of the program's main module."""
    closed: list[int] = []  # noqa: RUF012 - never changed
    """Which of descriptors 0 to 2 are closed in the restoring side."""
    pass_fds: list[int] = []  # noqa: RUF012
    """The numbers of the passed descriptors in the copy."""
    pgid: int | None = None
    """The process group to join if the copy would be in its own."""
    ignored: list[int] = []  # noqa: RUF012
    """Signals that the restoring side ignores, as under `nohup`."""
    limits: dict[int, tuple[int, int]] = {}  # noqa: RUF012
    """Soft and hard resource limits by number."""
    inherited: list[int] = []  # noqa: RUF012
    """
    Numbers of descriptors that the restoring side was started with; they follow `pass_fds`. One that the program has
    open itself stays.
    """
    schedule: tuple[int, int, int] = (0, 0, 0)
    """Niceness, scheduling policy and priority of the restoring side."""
    blocked: list[int] = []  # noqa: RUF012
    """Signals that the restoring side was started with blocked."""
    executable: str = ""
    """What an interpreter is to name itself; empty for its name at the dump."""

    def encode(self) -> bytes:
        """
        Return the fields of the request.

        Raises:
            ValueError: A field contains a NUL, or a variable name contains "=".
        """
        kind, value = self.main if self.main is not None else ("", self.executable)
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
            RestoreError: The request has another protocol.
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
        # By position, with few comprehensions: keyword names and nested functions dirty more pages in a copy.
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
            "" if kind else os.fsdecode(value),
        )


def _numbers(numbers: Iterable[int]) -> bytes:
    return b"".join([b"%d " % number for number in numbers])


def current_limits() -> dict[int, tuple[int, int]]:
    """Return the resource limits of this process."""
    numbers = {value for name, value in vars(resource).items() if name.startswith("RLIMIT_")}
    return {number: resource.getrlimit(number) for number in sorted(numbers)}


def ignored_signals() -> list[int]:
    """Return the signals that this process ignores, except those that Python ignores."""
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
    Refuse more descriptors than fit in one message.

    Raises:
        ValueError: There are too many.
    """
    if len(pass_fds) >= sockets.MAX_FDS:
        message = f"{len(pass_fds)} descriptors in pass_fds; at most {sockets.MAX_FDS - 1} can be passed"
        raise ValueError(message)


def send_request(control: int, request: Request, pass_fds: Sequence[int]) -> None:
    """
    Send the request to a restored process; do nothing if it has ended.

    Args:
        control: The restoring side's end of the socket in the request's slot.
        request: The request.
        pass_fds: The descriptors to pass, in the order of `request.pass_fds`; those of `request.inherited` follow.
    """
    memory = os.memfd_create("libcriu_py-request", os.MFD_CLOEXEC)
    try:
        with os.fdopen(memory, "wb", closefd=False) as file:
            file.write(request.encode())
        sockets.send_fds(control, [memory, *pass_fds, *request.inherited])
    except BrokenPipeError:
        return  # its supervisor reports the end
    finally:
        os.close(memory)
