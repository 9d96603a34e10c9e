"""
The order of the steps of a checkpoint, and how the failure of one undoes the others.

    before-hooks -> single-threaded before-hooks -> built-in resources -> engine: quiesce, dump
        -> built-in resources -> single-threaded after-hooks -> after-hooks

From the first single-threaded hook to the last, other threads are stopped. If a copy calls callbacks of
`os.register_at_fork`, they are stopped from the dump until these have run.

Only `async` hooks suspend these coroutines, so `with checkpoint()` and `async with checkpoint()` share them: the former
runs them to the end in one step.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import HookError
from libcriu_py.hooks import no_checkpoint, runner
from libcriu_py.hooks.registry import Entry, registry

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from libcriu_py.resources import BuiltIns
    from libcriu_py.snapshot.request import Request


class Outcome(enum.Enum):
    """Whether this process is the original of a checkpoint or a copy."""

    RESTORED = "restored"
    """A copy, restored from the snapshot."""
    CONTINUED = "continued"
    """The original, which continues after its dump."""
    SIMULATED = "simulated"
    """The original, after a simulated checkpoint without CRIU."""
    SKIPPED = "skipped"
    """The program, which goes on without a snapshot of it (`if_exists`, `if_impossible`)."""


class Return(NamedTuple):
    """What `Engine.dump` returns."""

    outcome: Outcome
    request: Request | None = None
    downtime: float | None = None
    """Seconds between dump and restore, by the wall clock."""
    ended: bool = False
    """Whether the program has run already."""
    later: Callable[[], Request] | None = None
    """Returns the request, where that was not read yet."""


class Continuation:
    """
    What a copy does in the place of returning from its dump: it runs a program, and ends.

    Returning would cost: each function that goes on writes reference counts, and so copies pages.
    """

    main: Any = None
    """The program's main module, made before the dump (`program.main.Main`), if that can be."""

    def ending(self) -> object:
        """Return, right before the dump, what C needs to end the process (`exit.for_ending`); None if it must not."""
        return None

    def run(self) -> None:
        """Run the program."""
        raise NotImplementedError

    def ended(self, error: BaseException | None) -> None:
        """End the process after the program, or keep what it has raised; the dump then returns."""
        raise NotImplementedError


class Departure:
    """What the last steps before the dump are, and the first ones in a copy."""

    def __init__(self) -> None:
        """Plan nothing."""
        self.last: list[Callable[[], object]] = []
        """What is done right before the dump."""
        self.program: Continuation | None = None
        self.calls: tuple[Callable[[], object], ...] = ()
        """What a copy calls before the program."""
        self.more_calls: tuple[Callable[[], object], ...] = ()
        """The same where one of the watched variables has changed."""
        self.watched: tuple[bytes, ...] = ()
        self.thread: object = None
        self.id_place = 0
        """The `threading.Thread` of this thread, and where its id is, if they are all that has one."""


class Engine:
    """What dumps the process; by default, each other step does nothing."""

    ends_original = False
    """Whether the original ends with its dump: until then, its other threads do nothing that copies do too."""

    def __init__(self) -> None:
        """Plan nothing beside the dump."""
        self.departure = Departure()

    def prepare(self) -> None:
        """Check at the start that the process can be dumped, and reserve what the dump needs; raise if it cannot."""

    def begin(self) -> None:
        """Begin, when the block is left, what the dump needs and what can be done while the hooks run."""

    def abandon(self) -> None:
        """Release what was reserved: there is no dump, or it failed."""

    def quiesce(self) -> None:
        """Run the last code of the program before the dump: finalizers, and the flushing of its streams."""

    def dump(self) -> Return:
        """Dump the process; on failure, leave it as it was and raise."""
        raise NotImplementedError

    def await_release(self) -> None:
        """Wait until no other process works on this one, before code of the program runs."""

    def report_ready(self, outcome: Outcome) -> None:
        """Report that the after-hooks have run."""


async def run(
    engine: Engine, built_ins: BuiltIns, hook_run: runner.HookRun, *, on_return: Callable[[Return], None]
) -> None:
    """
    Take the checkpoint: hooks, dump, hooks.

    Args:
        engine: What dumps the process.
        built_ins: The built-in resources.
        hook_run: The limits of the hooks, and where their timings go.
        on_return: Called with the outcome before the after-hooks run.

    Raises:
        HookError: A hook failed; after a dump, in the process that the hook ran in.
        ExceptionGroup: Several hooks failed.
    """
    entries = registry.begin()
    concurrent = tuple(entry for entry in entries if not entry.single_threaded)
    try:
        no_checkpoint.begin(hook_run.wait)
    except BaseException:
        registry.end()
        engine.abandon()
        raise
    try:
        engine.begin()
        await runner.run_befores(concurrent, hook_run)
        try:
            returned = await _dump_alone(engine, built_ins, entries, hook_run, on_return)
        except BaseException as error:
            undone = await runner.run_afters(concurrent, hook_run)
            runner.raise_all([error, *undone], "the checkpoint failed, and so did undoing its hooks")
            raise
    except BaseException:
        no_checkpoint.end()
        registry.end()
        engine.abandon()
        raise
    if not returned.ended:
        await _go_on(engine, built_ins, hook_run, entries, returned, on_return)


async def _go_on(
    engine: Engine,
    built_ins: BuiltIns,
    hook_run: runner.HookRun,
    entries: tuple[Entry, ...],
    returned: Return,
    on_return: Callable[[Return], None],
) -> None:
    """Put right what the dump needed, on both sides of it."""
    concurrent = tuple(entry for entry in entries if not entry.single_threaded)
    alone = tuple(entry for entry in entries if entry.single_threaded)
    on_return(returned)
    restored = returned.outcome is Outcome.RESTORED
    errors = await runner.run_built_ins(built_ins.fork_callbacks, hook_run) if restored else []
    if not alone:
        hook_run.thread_stop.end()
    errors += await runner.run_built_ins(built_ins.in_copy() if restored else built_ins.in_original(), hook_run)
    engine.await_release()
    errors += await runner.run_afters(alone, hook_run)
    hook_run.thread_stop.end()
    errors += await runner.run_afters(concurrent, hook_run)
    no_checkpoint.end()
    registry.end()
    engine.report_ready(returned.outcome)
    runner.raise_all(errors, "after-restore hooks failed")


async def _dump_alone(
    engine: Engine,
    built_ins: BuiltIns,
    entries: tuple[Entry, ...],
    hook_run: runner.HookRun,
    on_return: Callable[[Return], None],
) -> Return:
    """Dump with other threads stopped, if there are single-threaded hooks; resume the threads on failure."""
    alone = tuple(entry for entry in entries if entry.single_threaded)
    try:
        if alone:
            hook_run.thread_stop.begin(hook_run.wait)
        await runner.run_befores(alone, hook_run)
        try:
            return await _dump_with_built_ins(engine, built_ins, entries, hook_run, on_return)
        except BaseException as error:
            undone = await runner.run_afters(alone, hook_run)
            runner.raise_all([error, *undone], "the dump failed, and so did undoing its hooks")
            raise
    except BaseException:
        hook_run.thread_stop.end()
        raise


async def _dump_with_built_ins(
    engine: Engine,
    built_ins: BuiltIns,
    entries: tuple[Entry, ...],
    hook_run: runner.HookRun,
    on_return: Callable[[Return], None],
) -> Return:
    """Prepare the built-in resources and dump; undo that if either fails."""
    from libcriu_py.resources import failed

    stopped = hook_run.thread_stop.active
    try:
        built_ins.find()
        for name, call, undo in built_ins.before_dump():
            built_ins.begun.insert(0, (name, undo))
            try:
                await runner.timed(call, name, "before", hook_run)
            except Exception as error:
                raise failed(name, "before the dump", error) from error
        built_ins.leave()  # drops its references to all objects, so that they can be collected
        if built_ins.fork_callbacks and not stopped:
            hook_run.thread_stop.begin(hook_run.wait)
        _quiesce(engine, hook_run)
        if engine.ends_original:
            if not hook_run.thread_stop.active:
                hook_run.thread_stop.begin(hook_run.wait)
            hook_run.thread_stop.settle()
        if engine.departure.program is not None:
            _plan_copy(engine, built_ins, entries, hook_run, on_return)
        return engine.dump()
    except BaseException as error:
        if not stopped:
            hook_run.thread_stop.end()
        built_ins.leave()
        undone = await runner.run_built_ins(built_ins.begun, hook_run)
        runner.raise_all([error, *undone], "the dump failed, and so did undoing what was done for it")
        raise


def _plan_copy(
    engine: Engine,
    built_ins: BuiltIns,
    entries: tuple[Entry, ...],
    hook_run: runner.HookRun,
    on_return: Callable[[Return], None],
) -> None:
    """Plan what a copy does before its program: as little as possible, where there are no hooks and no threads."""
    departure = engine.departure
    if entries or hook_run.limit is not None or hook_run.thread_stop.active or not built_ins.are_plain():
        returned = Return(Outcome.RESTORED)

        def go_on() -> None:
            drive(_go_on(engine, built_ins, hook_run, entries, returned, on_return))

        departure.calls = departure.more_calls = (go_on,)
        return
    departure.last.insert(0, built_ins.before_dump_last)
    departure.calls, departure.more_calls = built_ins.calls_in_copy(runner.raise_all)
    departure.watched = built_ins.watched()
    departure.thread, departure.id_place = built_ins.only_id()
    # No other thread waits for these; where the dump fails, that they have ended already is no harm.
    no_checkpoint.end()
    registry.end()


def _quiesce(engine: Engine, hook_run: runner.HookRun) -> None:
    """Quiesce the engine; finalizers may wait for a stopped thread, just as a hook may."""
    try:
        with hook_run.thread_stop.guarded(hook_run.limit):
            engine.quiesce()
    except HookError as error:
        message = f"a finalizer, or flushing stdout and stderr, failed before the dump: {error}"
        raise HookError(message) from error


def drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    message = "a checkpoint without an event loop was suspended"
    raise RuntimeError(message)
