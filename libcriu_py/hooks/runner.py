"""
Calling hooks and built-in resources, and what comes of their failures.

A failure, an interruption by Ctrl-C included, keeps nothing from being undone: all that is to run runs, and then the
failures are raised together.
"""

from __future__ import annotations

import inspect
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import HookError
from libcriu_py.hooks import no_checkpoint as critical
from libcriu_py.hooks.registry import Entry, befores

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from libcriu_py.hooks.thread_stop import Standstill


class Course(NamedTuple):
    """How a checkpoint is run, and what is noted of it."""

    in_loop: bool
    """Whether the caller awaits it in an event loop."""
    limit: float | None
    """Seconds that each hook may take; None for as long as it likes."""
    wait: float
    """Seconds to wait for others to leave `no_checkpoint()`, and what cannot be interrupted."""
    timings: list[critical.Timing]
    """How long each hook and built-in resource took."""
    standstill: Standstill
    """What stops other threads for single-threaded hooks."""


async def run_built_ins(calls: Iterable[tuple[str, Callable[[], object]]], course: Course) -> list[BaseException]:
    """Run every call, whatever others do; returns what failed."""
    errors: list[BaseException] = []
    for name, call in calls:
        try:
            await timed(call, name, "after", course)
        except Exception as error:  # noqa: BLE001 - it is raised when all have run
            from libcriu_py.resources import failed

            errors.append(failed(name, "after it", error))
        except BaseException as error:  # noqa: BLE001 - an interruption too
            errors.append(error)
    return errors


async def timed(function: Callable[[], object], name: str, when: str, course: Course) -> None:
    """Call a function, within its time, and note how long it took."""
    start = time.monotonic()
    try:
        if course.limit is None and not course.standstill.active:
            result = function()  # what watches it is left alone too: a copy pays for each page that it touches
            if result is not None and inspect.isawaitable(result):  # which asks for a dozen types
                await _await(result, course, None)
        else:
            await _watched(function, name, course)
    finally:
        course.timings.append(critical.Timing(name, when, time.monotonic() - start))


async def _watched(function: Callable[[], object], name: str, course: Course) -> None:
    with course.standstill.guarded(course.limit) as limit:
        with critical.time_limit(limit, name):
            result = function()
        if result is not None and inspect.isawaitable(result):
            await _await(result, course, limit)


async def run_befores(entries: tuple[Entry, ...], course: Course) -> None:
    """Run the before-hooks; where one fails or is interrupted, those that ran are undone."""
    for position, entry in _positions(entries):
        try:
            await _call(entry, entry.before, "before-checkpoint", course)
        except BaseException as error:  # noqa: BLE001 - it is raised when others are undone
            # What was registered later has run already, in this reverse order.
            undone = await run_afters(entries[position + 1 :], course)
            raise_all([error, *undone], "a before-checkpoint hook failed, and so did undoing others")


def _positions(entries: tuple[Entry, ...]) -> Iterable[tuple[int, Entry]]:
    places = {entry.sequence: position for position, entry in enumerate(entries)}
    return ((places[entry.sequence], entry) for entry in befores(entries))


async def run_afters(entries: Iterable[Entry], course: Course) -> list[BaseException]:
    """Run every after-hook, whatever others do; returns what failed."""
    errors: list[BaseException] = []
    for entry in entries:
        try:
            await _call(entry, entry.after, "after-restore", course)
        except BaseException as error:  # noqa: BLE001 - it is raised when all have run
            errors.append(error)
    return errors


async def _call(entry: Entry, function: Callable[[], object] | None, kind: str, course: Course) -> None:
    if function is None:
        return
    try:
        await timed(function, entry.name, "before" if kind.startswith("before") else "after", course)
    except Exception as error:
        message = f"{kind} hook {entry.name} failed: {type(error).__name__}: {error}"
        raise HookError(message) from error


async def _await(awaitable: Any, course: Course, limit: float | None) -> None:
    import asyncio

    if course.in_loop:
        await asyncio.wait_for(awaitable, limit)
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_within(awaitable, limit))
        return
    awaitable.close()
    message = "an async hook cannot run in `with checkpoint()` inside a running event loop; use `async with`"
    raise RuntimeError(message)


async def _within(awaitable: Any, limit: float | None) -> None:
    import asyncio

    await asyncio.wait_for(awaitable, limit)


def raise_all(errors: list[BaseException], message: str) -> None:
    """
    Raise one exception as it is, several as a group; return when there is none.

    What is no error but an interruption (KeyboardInterrupt, SystemExit) is raised as itself, the others as its cause.
    """
    if not errors:
        return
    interruption = next((error for error in errors if not isinstance(error, Exception)), None)
    if interruption is not None:
        others = [error for error in errors if error is not interruption]
        if not others:
            raise interruption
        raise interruption from BaseExceptionGroup(message, others)
    if len(errors) == 1:
        raise errors[0]
    raise BaseExceptionGroup(message, errors)  # an ExceptionGroup, as all are errors
