"""
What a copy does before its program goes on, prepared before the dump for C (csrc/copy/arrive.c).

Each function of Python that runs in a copy writes reference counts, and so copies pages that it would share.
`libcriu_py.dump.arrival` does the same in Python, for whatever is unusual.
"""

from __future__ import annotations

import _locale  # of C, without the cost of `locale`
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.dump import stdio
from libcriu_py.linux import arrival
from libcriu_py.program import environment as own_variables
from libcriu_py.snapshot.manifest import WORKING_SET
from libcriu_py.snapshot.record import PROTOCOL
from libcriu_py.snapshot.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from libcriu_py.hooks.lifecycle import Departure

_STREAM_VARIABLES = (b"PYTHONIOENCODING", b"PYTHONUNBUFFERED")


def expect(
    departure: Departure,
    *,
    slot: int,
    prefix: Sequence[str],
    calls: Sequence[Callable[[], object]] = (),
    title: Callable[[], object] | None = None,
    **plan: Any,
) -> None:
    """
    Prepare the hand-over of the copies of the dump that follows.

    Args:
        departure: What is to be done beside it.
        slot: The descriptor that the copy reads its request from.
        prefix: The command line up to the program's arguments.
        calls: What the engine does in a copy.
        title: Shows the new command line.
        plan: Further members of `struct lcp_arrival`.
    """
    for step in departure.last:
        step()
    if sys.orig_argv[: len(prefix)] != [*prefix] or not sys.argv:
        arrival.forget()  # how this process itself arrived, if it is a copy
        return  # the program has changed them; Python puts them right
    added, changed = own_variables.changes()
    run = departure.program
    main = None if run is None else run.main
    own_variables.expect_given(_given)
    _raised.clear()
    ours = {*added, *(name for name, *_ in changed)}
    are_given = ours.isdisjoint(_STREAM_VARIABLES)
    streams = {} if run is None or not are_given else _expected_streams()
    renewals = stdio.renewals(os.environ._data) if streams else ()  # type: ignore[attr-defined]  # noqa: SLF001
    if None in renewals:
        streams = {}
    objects = arrival.Objects(
        argv=sys.argv,
        orig_argv=sys.orig_argv,
        environ=os.environ,
        environb=os.environb,
        data=sys.intern("_data"),
        kept=_kept,
        raised=_raised,
        zone=time.tzset,
        reopen=_reopen if are_given else _reopen_as_given,
        streams=renewals,
        title=title,
        calls=(*departure.calls, *calls),
        more_calls=(*departure.more_calls, *calls),
        run=None if run is None else run.run,
        code=None if main is None else main.code,
        module=None if main is None else main.module,
        ended=None if run is None else run.ended,
        thread=departure.thread,
        native_id=sys.intern("_native_id"),
        ending=None if run is None else run.ending(),
    )
    sources = {} if main is None else {"main_file": main.file, "main_real": main.real, "main_source": main.source}
    arrival.expect(
        objects,
        protocol=PROTOCOL,
        slot=slot,
        prefix=len(prefix),
        working_set=os.fsencode(WORKING_SET),
        added=[name + b"=" + value for name, value in added.items()],
        changed=[text for name, old, new in changed for text in (name + b"=" + old, _variable(name, new))],
        watched=[_variable(name, os.environb.get(name)) for name in _watched(departure)],
        **_zone(),
        id_place=departure.id_place,
        main_size=0 if main is None else len(main.source),
        **sources,
        **streams,
        **plan,
    )


_kept: list[object] = []
_raised: list[BaseException] = []


def raise_interruption() -> None:
    """Raise what a signal handler of the program has raised in a call from C; whatever else failed is done again."""
    error = _raised.pop() if _raised else None
    if error is not None and is_interruption(error):
        raise error


def is_interruption(error: BaseException) -> bool:
    """Return whether a signal handler of the program has raised an exception, as far as can be told."""
    if not isinstance(error, Exception):
        return True
    import signal

    handlers: list[Any] = [signal.getsignal(number) for number in signal.valid_signals()]
    codes = {getattr(getattr(handler, "__func__", handler), "__code__", None) for handler in handlers}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _given() -> Mapping[bytes, bytes] | None:
    """Return the environment that the launcher gave to this copy, if C has applied it."""
    if arrival.state() == arrival.NOT_ARRIVED:
        return None
    return Request.decode(arrival.Block().read()).env


def _zone() -> dict[str, Any]:
    """Return the time zone, if Python's module `time` knows the same as C."""
    zone, names, offsets = arrival.zone()
    return {"zone": zone} if names == {*time.tzname} and offsets == {-time.timezone, -time.altzone} else {}


def _watched(departure: Departure) -> list[bytes]:
    return [*departure.watched, *_STREAM_VARIABLES]


def _variable(name: bytes, value: bytes | None) -> bytes:
    return name if value is None else name + b"=" + value


def _reopen() -> None:
    stdio.reopen((), os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001 - without its encoding


def _reopen_as_given() -> None:
    """Heed the launcher's variables alone, as Python does when it starts: the program has changed them later."""
    stdio.reopen((), _given() or {})


def _expected_streams() -> dict[str, Any]:
    """
    Set the standard streams up for what copies usually have: output to a pipe, input from a file or nothing.

    Those of this process stay open, and what Python writes to them is as before.
    """
    streams = (sys.__stdin__, sys.__stdout__, sys.__stderr__)
    if any(stream is None or stream.closed for stream in streams) or not all(map(stdio.is_open, range(3))):
        return {}
    stdio.flush()
    saved = [os.dup(fd) for fd in range(3)]
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    pipe = os.pipe()
    try:
        for fd, made in enumerate((null, pipe[1], pipe[1])):
            os.dup2(made, fd)
        _reopen()
        found = tuple(arrival.stream(fd)[0] for fd in range(3))
    finally:
        for fd, kept in enumerate(saved):
            os.dup2(kept, fd)
        for fd in (*saved, null, *pipe):
            os.close(fd)
    return {"streams": found, "locale": os.fsencode(_locale.setlocale(_locale.LC_CTYPE, None))}
