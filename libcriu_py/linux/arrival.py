"""The usual hand-over of a copy, which C does before the dump returns there (csrc/copy)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.linux.ffi import ffi, lib, text
from libcriu_py.linux.sockets import MAX_FDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from libcriu_py._libcriu import CData

# Resolve these at import: cffi's first lookup allocates, in each copy.
_has_arrived, _expect = lib.lcp_has_arrived, lib.lcp_expect_arrival
NOT_ARRIVED, RECEIVED, APPLIED, ENDED = (
    lib.LCP_NOT_ARRIVED,
    lib.LCP_RECEIVED,
    lib.LCP_APPLIED,
    lib.LCP_ENDED,
)
"""How far it has come."""

_expected: list[object] = []
"""What the C code points to."""


class Objects(NamedTuple):
    """The Python objects of a hand-over, in the order of csrc/copy/arrive.c."""

    argv: list[str]
    orig_argv: list[str]
    environ: object
    environb: object
    data: str
    """The name of the attribute of both that has the variables."""
    kept: list[object]
    """Where the old variables are kept."""
    raised: list[BaseException]
    """Gets what a signal handler raises meanwhile."""
    zone: Callable[[], object]
    """Sets the time zone of Python's module `time`."""
    reopen: Callable[[], object]
    """Sets up the standard streams."""
    streams: Sequence[Sequence[object] | None]
    """How each is set up where it alone is of another kind (`stdio.Renewal`)."""
    title: Callable[[], object] | None
    """Shows the new command line."""
    calls: tuple[Callable[[], object], ...]
    """What comes after the hand-over and before the program."""
    more_calls: tuple[Callable[[], object], ...]
    """The same where a watched variable has changed."""
    run: Callable[[], object] | None
    """Runs the program; None if that goes on behind the dump."""
    code: object
    """The code of the program's main module, if that is known, and the module."""
    module: object
    ended: Callable[[BaseException | None], object] | None
    """Ends the process after the program, or keeps its exception."""
    thread: object
    """The `threading.Thread` of the one that goes on, if its id has to be renewed."""
    native_id: str
    """The name of its attribute."""
    ending: object
    """What C needs to end it."""


def state() -> int:
    """Return how far the hand-over has come in C; a number of those above."""
    return int(_has_arrived())


def expect(objects: Objects, **plan: Any) -> None:
    """
    Have the copies of the dump that follows hand themselves over.

    Args:
        objects: The Python objects.
        plan: The members of `struct lcp_arrival`; strings as bytes, and lists of them.
    """
    kept: list[object] = [objects]
    arrival: Any = ffi.new("struct lcp_arrival *")
    for name, value in plan.items():
        setattr(arrival, name, _native(value, kept))
    _expected[:] = kept
    _expect(arrival, ffi.cast("void *", id(objects)))


def arrived_at() -> tuple[float, float]:
    """Return `time.monotonic()` and the wall clock at the arrival of this copy; 0 if C did not see it."""
    times = ffi.new("int64_t[2]")
    lib.lcp_arrived_at(times)
    return times[0] / 1e9, times[1] / 1e9


def forget() -> None:
    """Expect no copy: there was no dump, or this is the original."""
    _expect(ffi.NULL, ffi.NULL)
    _expected.clear()


def received_fds() -> list[int]:
    """Return the descriptors of a message that C has received and not used: the request's own first."""
    fds = ffi.new("int[]", MAX_FDS)
    return list(fds[0 : lib.lcp_received_fds(fds, MAX_FDS)])


class Block:
    """The bytes of a request that C has applied, which stay where they are."""

    def __init__(self) -> None:
        """Note where they are."""
        size = ffi.new("size_t *")
        self._data = lib.lcp_received_block(size)
        self._size = int(size[0])

    def read(self) -> bytes:
        """Return them."""
        return bytes(ffi.buffer(self._data, self._size))


def stream(fd: int) -> CData:
    """Return what decides how a standard stream is set up (`struct lcp_stream`)."""
    found = ffi.new("struct lcp_stream *")
    lib.lcp_look_at_stream(fd, found)
    return found


def zone() -> tuple[CData, set[str], set[int]]:
    """Return what C knows of the time zone (`struct lcp_zone`), and its names and offsets from UTC."""
    found: Any = ffi.new("struct lcp_zone *")
    lib.lcp_look_at_zone(found)
    return found[0], {*map(text, found.names)}, {*found.offsets}


def _native(value: Any, kept: list[object]) -> Any:
    if isinstance(value, bytes):
        made = ffi.new("char[]", value)
    elif isinstance(value, list):
        strings = [ffi.new("char[]", item) for item in value]
        kept += strings
        made = ffi.new("char *[]", [*strings, ffi.NULL])
    else:
        return ffi.NULL if value is None else value
    kept.append(made)
    return made


def strings(values: Sequence[str]) -> list[bytes]:
    """Return strings as `expect` takes them."""
    return [*map(os.fsencode, values)]
