"""
Run hooks and built-in resources, and raise their failures together.

A failure, even an interruption by Ctrl-C, does not keep the remaining calls from running; all failures are raised once
they have run.
"""

from __future__ import annotations

import inspect
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import HookError
from libcriu_py.hooks import no_checkpoint
from libcriu_py.hooks.registry import Entry, befores

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from libcriu_py.hooks.thread_stop import ThreadStop


class HookRun(NamedTuple):
    """The conditions under which a checkpoint runs its hooks, and their timings."""

    in_loop: bool
    """Whether the caller awaits the checkpoint in an event loop."""
    limit: float | None
    """Seconds that each hook may take; None for no limit."""
    wait: float
    """Seconds to wait for other threads to leave `no_checkpoint()` or code where they cannot be stopped."""
    timings: list[no_checkpoint.Timing]
    """How long each hook and built-in resource took."""
    thread_stop: ThreadStop
    """What stops other threads for single-threaded hooks."""


async def run_built_ins(calls: Iterable[tuple[str, Callable[[], object]]], hook_run: HookRun) -> list[BaseException]:
    """Run every call; return the failures."""
    errors: list[BaseException] = []
    for name, call in calls:
        try:
            await timed(call, name, "after", hook_run)
        except Exception as error:  # noqa: BLE001 - raised once all have run
            from libcriu_py.resources import failed

            errors.append(failed(name, "after it", error))
        except BaseException as error:  # noqa: BLE001 - an interruption too
            errors.append(error)
    return errors


async def timed(function: Callable[[], object], name: str, when: str, hook_run: HookRun) -> None:
    """Call a function within the time limit, and record how long it took."""
    start = time.monotonic()
    try:
        if hook_run.limit is None and not hook_run.thread_stop.active:
            result = function()  # without the guards below: each page that they touch costs a copy time
            if result is not None and inspect.isawaitable(result):  # isawaitable() checks a dozen types
                await _await(result, hook_run, None)
        else:
            await _watched(function, name, hook_run)
    finally:
        hook_run.timings.append(no_checkpoint.Timing(name, when, time.monotonic() - start))


async def _watched(function: Callable[[], object], name: str, hook_run: HookRun) -> None:
    with hook_run.thread_stop.guarded(hook_run.limit) as limit:
        with no_checkpoint.time_limit(limit, name):
            result = function()
        if result is not None and inspect.isawaitable(result):
            await _await(result, hook_run, limit)


async def run_befores(entries: tuple[Entry, ...], hook_run: HookRun) -> None:
    """Run the before-hooks; if one fails or is interrupted, undo those that ran."""
    for position, entry in _positions(entries):
        try:
            await _call(entry, entry.before, "before-checkpoint", hook_run)
        except BaseException as error:  # noqa: BLE001 - raised once the others are undone
            # The hooks run in reverse order, so those registered later have run already.
            undone = await run_afters(entries[position + 1 :], hook_run)
            raise_all([error, *undone], "a before-checkpoint hook failed, and so did undoing others")


def _positions(entries: tuple[Entry, ...]) -> Iterable[tuple[int, Entry]]:
    places = {entry.sequence: position for position, entry in enumerate(entries)}
    return ((places[entry.sequence], entry) for entry in befores(entries))


async def run_afters(entries: Iterable[Entry], hook_run: HookRun) -> list[BaseException]:
    """Run every after-hook; return the failures."""
    errors: list[BaseException] = []
    for entry in entries:
        try:
            await _call(entry, entry.after, "after-restore", hook_run)
        except BaseException as error:  # noqa: BLE001 - raised once all have run
            errors.append(error)
    return errors


async def _call(entry: Entry, function: Callable[[], object] | None, kind: str, hook_run: HookRun) -> None:
    if function is None:
        return
    try:
        await timed(function, entry.name, "before" if kind.startswith("before") else "after", hook_run)
    except Exception as error:
        message = f"{kind} hook {entry.name} failed: {type(error).__name__}: {error}"
        raise HookError(message) from error


async def _await(awaitable: Any, hook_run: HookRun, limit: float | None) -> None:
    import asyncio

    if hook_run.in_loop:
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
    Raise one exception as it is, several as a group; return if there is none.

    An interruption (KeyboardInterrupt, SystemExit) is raised as itself, with the others as its cause.
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
