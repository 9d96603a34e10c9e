"""Critical sections, in which no checkpoint is taken, and time limits for hooks."""

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
"""Seconds that a checkpoint waits by default for other threads to leave their critical sections."""

_changed = threading.Condition()
_inside: dict[int, int] = {}
_taking = False


class Timing(NamedTuple):
    """
    How long a hook or a built-in resource took.

    Attributes:
        name: Of the hook or resource.
        when: "before" the dump or "after" it.
        seconds: How long it took.
    """

    name: str
    when: str
    seconds: float


@contextlib.contextmanager
def no_checkpoint() -> Iterator[None]:
    """
    Keep other threads from taking a checkpoint during this block; they wait until it is left.

        with no_checkpoint():
            transfer(money)

    Entering the block waits for a checkpoint that is being taken. Taking one inside the block is an error.
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
    Keep all threads out of critical sections until `end`.

    Args:
        limit: Seconds to wait for threads that are in one.

    Raises:
        CheckpointError: This thread is in a critical section, or another did not leave its own in time; the message has
            the stack of each.
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
            message = f"no checkpoint was taken: still in `with no_checkpoint()` after {limit:g} s: {where}"
            raise CheckpointError(message)


def end() -> None:
    """Let threads enter critical sections again."""
    global _taking
    with _changed:
        _taking = False
        _changed.notify_all()


@contextlib.contextmanager
def time_limit(seconds: float | None, name: str) -> Iterator[None]:
    """
    Interrupt a hook that takes too long.

    In the main thread, SIGALRM interrupts the hook wherever it is, even while it waits. In another thread, the error is
    raised when the hook returns.

    Args:
        seconds: How long the hook may take; None for no limit.
        name: The hook's name, for the message.

    Raises:
        TimeoutError: The hook took longer, in the main thread.
        HookError: The hook took longer, in another thread.
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
