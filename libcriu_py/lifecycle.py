"""
The order of things in a checkpoint, and what happens when one of them fails.

    before-hooks -> built-in resources -> engine: quiesce, dump -> built-in resources -> after-hooks

Written as coroutines that are suspended by `async` hooks only, so that `with checkpoint()` and
`async with checkpoint()` share it: the former runs it to its end in one step.
"""

from __future__ import annotations

import enum
import inspect
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from libcriu_py import critical
from libcriu_py.errors import HookError
from libcriu_py.hooks import Entry, befores, registry

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from libcriu_py.handover import Request
    from libcriu_py.resources import BuiltIns


class Outcome(enum.Enum):
    """Which side of a checkpoint this process is."""

    RESTORED = "restored"
    """A copy, restored from the snapshot."""
    CONTINUED = "continued"
    """The original, which goes on after its dump."""
    SIMULATED = "simulated"
    """The original, after a rehearsal without CRIU."""


class Return(NamedTuple):
    """What an engine comes back with."""

    outcome: Outcome
    request: Request | None = None
    downtime: float | None = None
    """Seconds between dump and restore, by the wall clock."""


class Engine(Protocol):
    """What dumps the process."""

    def prepare(self) -> None:
        """Check at the beginning that a dump can work, and reserve what it needs; raise if not."""

    def abandon(self) -> None:
        """Give back what was reserved: there will be no dump, or it failed."""

    def dump(self) -> Return:
        """Dump; raise with the process as it was before if that fails."""

    def settle(self, outcome: Outcome) -> None:
        """Be told that the after-hooks are through."""


class Course(NamedTuple):
    """How a checkpoint is run, and what is noted of it."""

    in_loop: bool
    """Whether the caller awaits it in an event loop."""
    limit: float | None = None
    """Seconds that each hook may take; None for as long as it likes."""
    wait: float = critical.WAIT
    """Seconds to wait for others to leave `no_checkpoint()`."""
    timings: list[critical.Timing] = []  # noqa: RUF012 - each caller gives its own
    """How long each hook and built-in resource took."""


async def run(engine: Engine, built_ins: BuiltIns, course: Course, *, on_return: Callable[[Return], None]) -> None:
    """
    Take the checkpoint: hooks, dump, hooks.

    Args:
        engine: what dumps.
        built_ins: what is put right beside the hooks.
        course: how, and where the timings go.
        on_return: is told the outcome before the after-hooks run.

    Raises:
        HookError: a hook failed; after a dump, in the process that the hook ran in.
        ExceptionGroup: there are several causes.
    """
    entries = registry.begin()
    try:
        critical.begin(course.wait)
    except BaseException:
        registry.end()
        engine.abandon()
        raise
    try:
        await _run_befores(entries, course)
        try:
            returned = await _dump(engine, built_ins, course)
        except BaseException as error:
            undone = await _run_afters(entries, course)
            if undone and isinstance(error, Exception):
                raise_all([error, *undone], "the checkpoint failed, and so did undoing its hooks")
            raise
    except BaseException:
        critical.end()
        registry.end()
        engine.abandon()
        raise
    on_return(returned)
    calls = built_ins.put_right() if returned.outcome is Outcome.RESTORED else built_ins.come_back()
    errors = await _run_built_ins(calls, course)
    errors += await _run_afters(entries, course)
    critical.end()
    registry.end()
    engine.settle(returned.outcome)
    raise_all(errors, "after-restore hooks failed")


async def _dump(engine: Engine, built_ins: BuiltIns, course: Course) -> Return:
    """Dump with the built-in resources let go; a failure undoes what was let go."""
    from libcriu_py.resources import failed

    begun: list[tuple[str, Callable[[], object]]] = []
    try:
        built_ins.find()
        for name, call, undo in built_ins.let_go():
            begun.insert(0, (name, undo))
            try:
                await _timed(call, name, "before", course)
            except Exception as error:
                raise failed(name, "before the dump", error) from error
        built_ins.leave()
        return engine.dump()
    except BaseException as error:
        built_ins.leave()
        undone = await _run_built_ins(begun, course)
        if undone and isinstance(error, Exception):
            raise_all([error, *undone], "the dump failed, and so did undoing what was done for it")
        raise


async def _run_built_ins(calls: Iterable[tuple[str, Callable[[], object]]], course: Course) -> list[Exception]:
    """Run every call, whatever others do; returns what failed."""
    from libcriu_py.resources import failed

    errors: list[Exception] = []
    for name, call in calls:
        try:
            await _timed(call, name, "after", course)
        except Exception as error:  # noqa: BLE001 - it is raised when all have run
            errors.append(failed(name, "after it", error))
    return errors


async def _timed(function: Callable[[], object], name: str, when: str, course: Course) -> None:
    """Call a function, within its time, and note how long it took."""
    start = time.monotonic()
    try:
        with critical.time_limit(course.limit, name):
            result = function()
        if inspect.isawaitable(result):
            await _await(result, course)
    finally:
        course.timings.append(critical.Timing(name, when, time.monotonic() - start))


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    message = "a checkpoint without an event loop was suspended"
    raise RuntimeError(message)


async def _run_befores(entries: tuple[Entry, ...], course: Course) -> None:
    for position, entry in _positions(entries):
        try:
            await _call(entry, entry.before, "before-checkpoint", course)
        except HookError as error:
            # What was registered later has run already, in this reverse order.
            undone = await _run_afters(entries[position + 1 :], course)
            raise_all([error, *undone], "a before-checkpoint hook failed, and so did undoing others")


def _positions(entries: tuple[Entry, ...]) -> Iterable[tuple[int, Entry]]:
    places = {entry.sequence: position for position, entry in enumerate(entries)}
    return ((places[entry.sequence], entry) for entry in befores(entries))


async def _run_afters(entries: Iterable[Entry], course: Course) -> list[Exception]:
    """Run every after-hook, whatever others do; returns what failed."""
    errors: list[Exception] = []
    for entry in entries:
        try:
            await _call(entry, entry.after, "after-restore", course)
        except HookError as error:
            errors.append(error)
    return errors


async def _call(entry: Entry, function: Callable[[], object] | None, kind: str, course: Course) -> None:
    if function is None:
        return
    try:
        await _timed(function, entry.name, "before" if kind.startswith("before") else "after", course)
    except Exception as error:
        message = f"{kind} hook {entry.name} failed: {type(error).__name__}: {error}"
        raise HookError(message) from error


async def _await(awaitable: Any, course: Course) -> None:
    import asyncio

    if course.in_loop:
        await asyncio.wait_for(awaitable, course.limit)
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(_within(awaitable, course.limit))
        return
    awaitable.close()
    message = "an async hook cannot run in `with checkpoint()` inside a running event loop; use `async with`"
    raise RuntimeError(message)


async def _within(awaitable: Any, limit: float | None) -> None:
    import asyncio

    await asyncio.wait_for(awaitable, limit)


def raise_all(errors: list[Exception], message: str) -> None:
    """Raise one exception as it is, several as a group; return when there is none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(message, errors)
