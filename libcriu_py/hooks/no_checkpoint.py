"""Stretches of a program in which no checkpoint may be taken, and how long hooks may take."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import CheckpointError, HookError
from libcriu_py.hooks import stacks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

WAIT = 30.0
"""Seconds that a checkpoint waits for others to leave their critical sections, unless it is told otherwise."""

_changed = threading.Condition()
_inside: dict[int, int] = {}
_taking = False


class Timing(NamedTuple):
    """
    How long a hook or a built-in resource took.

    Attributes:
        name: Which.
        when: "before" the dump or "after" it.
        seconds: How long.
    """

    name: str
    when: str
    seconds: float


@contextlib.contextmanager
def no_checkpoint() -> Iterator[None]:
    """
    Keep other threads from taking a checkpoint in this block; they wait until it is left.

        with no_checkpoint():
            transfer(money)

    Entering waits while a checkpoint is being taken. A checkpoint that the block itself takes is an error.
    """
    me = threading.get_ident()
    with _changed:
        _changed.wait_for(lambda: not _taking or me in _inside)
        _inside[me] = _inside.get(me, 0) + 1
    try:
        yield
    finally:
        with _changed:
            _inside[me] -= 1
            if not _inside[me]:
                del _inside[me]
            _changed.notify_all()


def begin(limit: float = WAIT) -> None:
    """
    Keep everybody out of critical sections until `end`.

    Args:
        limit: Seconds to wait for those that are in one.

    Raises:
        CheckpointError: This thread is in one, or another one stays there; with the stack of each.
    """
    global _taking
    me = threading.get_ident()
    with _changed:
        if me in _inside:
            message = "a checkpoint cannot be taken inside `with no_checkpoint()`; take it after the block"
            raise CheckpointError(message)
        _taking = True
        if not _changed.wait_for(lambda: not _inside, limit):
            _taking = False
            _changed.notify_all()
            where = stacks.describe_threads(_inside)
            message = f"no checkpoint was taken: after {limit:g} s still in `with no_checkpoint()`: {where}"
            raise CheckpointError(message)


def end() -> None:
    """Let others into critical sections again."""
    global _taking
    with _changed:
        _taking = False
        _changed.notify_all()


@contextlib.contextmanager
def time_limit(seconds: float | None, name: str) -> Iterator[None]:
    """
    Interrupt a hook that takes too long.

    In the main thread a signal (SIGALRM) interrupts it wherever it is, waiting included; in another thread it is told
    when it has come back.

    Args:
        seconds: How long it may take; None for as long as it likes.
        name: The hook, for the message.

    Raises:
        HookError: It took longer.
    """
    if seconds is None:
        yield
        return
    message = f"it took longer than {seconds:g} s"
    start = time.monotonic()
    if threading.current_thread() is not threading.main_thread():
        yield
        if time.monotonic() - start > seconds:
            raise HookError(f"{name}: {message}")
        return

    def interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise TimeoutError(message)

    former = signal.signal(signal.SIGALRM, interrupt)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        if left:
            gone = time.monotonic() - start
            signal.setitimer(signal.ITIMER_REAL, max(left - gone, 1e-6), interval)
