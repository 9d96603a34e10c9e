"""The self-checkpoint: `with checkpoint(dir): ...`, its decorator and its function form."""

from __future__ import annotations

import functools
import gc
import inspect
import os
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from libcriu_py.dump import changes
from libcriu_py.errors import CriuError, HookError
from libcriu_py.findings import tracing
from libcriu_py.hooks import lifecycle, no_checkpoint, runner
from libcriu_py.hooks.lifecycle import Outcome, Return
from libcriu_py.hooks.thread_stop import ThreadStop
from libcriu_py.program import reads
from libcriu_py.resources import BuiltIns
from libcriu_py.settings import overridden

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from libcriu_py.hooks.lifecycle import Continuation
    from libcriu_py.hooks.no_checkpoint import Timing
    from libcriu_py.settings import (
        EngineName,
        EnvCheck,
        Exit,
        ForkCallbacks,
        HereSettings,
        IfExists,
        IfImpossible,
        MemoryKind,
        Then,
    )
    from libcriu_py.snapshot.request import Request

changes.note()
reads.begin()

P = ParamSpec("P")
T = TypeVar("T")


class Checkpoint:
    """
    One checkpoint of this process, as `checkpoint` returns it.

    Use it once as a context manager (`with`, or `async with` for async hooks), or any number of times as a decorator.

    Thread safety: the thread that leaves the block takes the checkpoint; the dump freezes other threads wherever they
    are, and they continue from there in each copy.
    """

    def __init__(self, dir: str | os.PathLike[str] | None = None, **settings: Unpack[HereSettings]) -> None:  # noqa: A002
        """Take the arguments of `checkpoint_here`."""
        changes.note()
        self._given = settings
        self._settings = overridden({"dir": dir, **settings})
        self._built_ins = BuiltIns(
            self._settings["resources"],
            fork_callbacks=self._settings["fork_callbacks"],
            native=self._settings["engine"] in {"auto", "native"},
        )
        self._engine = _make_engine(self._settings)
        self.timings: list[Timing] = []
        """How long each hook and built-in resource took; a copy has the original's timings too."""
        self._entered = False
        self.outcome: Outcome | None = None
        """Whether this process is the original or a copy; None until the block is left."""
        self._request: Request | Callable[[], Request] | None = None
        self.downtime: float | None = None
        """In a copy, the seconds from dump to restore by the wall clock; None in the original."""

    def __repr__(self) -> str:
        """Return directory and outcome."""
        outcome = "not taken" if self.outcome is None else self.outcome.value
        return f"<Checkpoint {self._settings['dir']!r}, {outcome}>"

    @property
    def request(self) -> Request | None:
        """In a copy, what the restoring side asked for; None in the original."""
        if callable(self._request):
            self._request = self._request()
        return self._request

    @property
    def restored(self) -> bool:
        """Whether this process is a copy, restored from the snapshot."""
        return self.outcome is Outcome.RESTORED

    @property
    def stats(self) -> Mapping[str, int]:
        """
        Statistics of the dump, CRIU's where that took it: times in microseconds, counts of pages; empty when simulated.

        Raises:
            ImageError: The statistics cannot be read.
        """
        if self.outcome in {None, Outcome.SIMULATED, Outcome.SKIPPED}:
            return {}
        from libcriu_py.snapshot.manifest import dump_stats

        return dump_stats(self.request.snapshot if self.request is not None else os.fspath(self._settings["dir"]))

    def __enter__(self) -> Self:
        """Check that this process can be dumped, and reserve the snapshot's directory."""
        if self._entered:
            message = "a Checkpoint can be entered only once; call checkpoint() again"
            raise RuntimeError(message)
        self._entered = True
        reads.begin()
        tracing.begin()
        self._built_ins.note_variables()
        self._prepare()
        self._built_ins.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the checkpoint, unless the block raised an exception."""
        if kind is not None:
            self._engine.abandon()
            return
        lifecycle.drive(self._take(in_loop=False))

    async def __aenter__(self) -> Self:
        """Do what `__enter__` does."""
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the checkpoint, awaiting async hooks in the running event loop."""
        if kind is not None:
            self._engine.abandon()
            return
        await self._take(in_loop=True)

    def continue_with(self, program: Continuation, *, frozen: bool) -> None:
        """
        Have copies run a program, and end, in the place of going on behind the block.

        Args:
            program: The program.
            frozen: Whether copies leave what there is at the dump out of garbage collections.
        """
        self._engine.departure.program = program
        if frozen:
            from libcriu_py import exit as ending

            ending.freeze()
            self._engine.departure.last.append(ending.freeze_more)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Decorate a warm-up function: each call runs it, takes a checkpoint and returns the function's result."""
        directory, settings = self._settings["dir"], self._given
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with Checkpoint(directory, **settings):
                    return await function(*args, **kwargs)

            return wrapper  # type: ignore[return-value]

        @functools.wraps(function)
        def plain_wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            with Checkpoint(directory, **settings):
                return function(*args, **kwargs)

        return plain_wrapper

    def _prepare(self) -> None:
        """Reserve the snapshot's directory, or go on without one where the program said so."""
        try:
            self._engine.prepare()
        except (CriuError, OSError, ImportError) as error:  # the last without the C extension
            from libcriu_py.dump import skipping

            if not skipping.is_wanted(error, self._settings):
                raise
            self._engine = skipping.SkippingEngine()

    async def _take(self, *, in_loop: bool) -> None:
        try:
            await self._run(in_loop=in_loop)
            if not self.restored:
                reads.end()
        except (CriuError, OSError) as error:
            from libcriu_py.dump import skipping

            reads.end()
            taken = self.outcome is not None
            if taken or isinstance(error, HookError) or not skipping.is_wanted(error, self._settings):
                raise
            self.outcome = Outcome.SKIPPED

    async def _run(self, *, in_loop: bool) -> None:
        limit = self._settings["hook_limit"]
        hook_run = runner.HookRun(in_loop, limit, no_checkpoint.WAIT, self.timings, ThreadStop())
        taking = lifecycle.run(self._engine, self._built_ins, hook_run, on_return=self._note)
        if self._settings["exit"] == "normal":
            await taking
            return
        from libcriu_py import exit as ending

        frozen_before = gc.get_freeze_count() > 0
        ending.freeze()
        self._engine.departure.last.append(ending.freeze_more)
        try:
            await taking
        finally:
            if self.restored:
                ending.end_fast_at_exit()
            elif not frozen_before:
                ending.unfreeze()

    def _note(self, returned: Return) -> None:
        self.outcome = returned.outcome
        self._request = returned.request or returned.later
        self.downtime = returned.downtime


def _make_engine(settings: Mapping[str, Any]) -> lifecycle.Engine:
    if settings["engine"] == "simulate":
        from libcriu_py.dump.engine import SimulateEngine

        return SimulateEngine()
    if settings["dir"] is None:
        message = (
            "no directory for the snapshot: give one to checkpoint(), or set LIBCRIU_PY_SNAPSHOT, "
            "which `libcriu-py snapshot -o DIR` does"
        )
        raise ValueError(message)
    names = ("then", "program", "details", "options", "memory", "env_check")
    chosen: dict[str, Any] = {name: settings[name] for name in names}
    chosen["replace"] = settings["if_exists"] == "replace"
    path = os.fspath(settings["dir"])
    engine = settings["engine"]
    if engine == "native":
        from libcriu_py.dump.native_engine import NativeEngine

        return NativeEngine(path, **chosen)
    from libcriu_py.dump.criu_engine import CriuEngine

    if engine == "criu" or settings["options"]:
        return CriuEngine(path, **chosen)
    from libcriu_py.dump.auto_engine import AutoEngine
    from libcriu_py.dump.native_engine import NativeEngine

    return AutoEngine(NativeEngine(path, **chosen), CriuEngine(path, **chosen))


def checkpoint(  # noqa: PLR0913 - each a setting of its own, given by name
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name it has everywhere here
    *,
    then: Then = "exit",
    engine: EngineName = "auto",
    replace: bool = False,
    if_exists: IfExists = "error",
    if_impossible: IfImpossible = "raise",
    options: Mapping[str, object] | None = None,
    memory: MemoryKind = "auto",
    exit: Exit = "normal",  # noqa: A002
    resources: Mapping[str, bool | Mapping[str, Any]] | None = None,
    fork_callbacks: ForkCallbacks = "known",
    hook_limit: float | None = None,
    env_check: EnvCheck = "error",
) -> Checkpoint:
    """
    Checkpoint this process when a block of code, its warm-up, is left; the original then says how to start copies.

        with checkpoint("snap"):
            model = load_model()
        main(sys.argv[1:])          # in each copy restored from "snap"

    If the block raises an exception, no dump is taken. A failed dump leaves the process as it was, and no directory.

    The variables of docs/settings.md override these arguments.

    Args:
        dir: The snapshot to make; the directory must not exist or be empty.
        then: "exit" ends the original with status 0 after the dump, without its atexit and finally
            code, which belongs to the copies; "continue" keeps it running.
        engine: What dumps the process and restores it: "native", without CRIU, rights or namespaces, for one process on
            x86-64 (docs/engines.md); "criu"; "auto" for native where the process is eligible and no `options` are
            given, else criu; or "simulate" to run the same lifecycle, hooks included, without a dump.
        replace: Whether to replace an existing snapshot: short for `if_exists="replace"`.
        if_exists: What to do where there is a snapshot already: "error" raises FileExistsError; "replace" replaces it,
            in one step, when the new one is complete; "continue" goes on past the block, as `Outcome.SKIPPED`.
        if_impossible: What to do where no dump can be taken: "raise" an exception, or "continue", which says why on
            stderr and goes on past the block, as `Outcome.SKIPPED`. Hooks run as if the dump had been taken. An
            exception of a hook, or of the block, is raised in any case.
        options: Options of criu's dump, by the names of `DumpOptions`; for example `{"tcp_close": True}`.
        memory: "copy" reads all memory when a copy starts; "map" maps it from one file wherever that is safe, and
            reads pages when they are used; "auto" maps it where that saves time and no other allocator interferes.
        exit: How copies end: "normal", or "fast", which skips interpreter teardown; with torch, teardown takes longer
            than a restore. See `libcriu_py.exit` for what is skipped.
        resources: Built-in resources to switch off or to set, such as `{"random": False}`; see docs/resources.md.
        fork_callbacks: Which callbacks of `os.register_at_fork` copies call, while other Python threads are stopped:
            "known" for those known to renew random state or ids and nothing else, or "none".
        hook_limit: Seconds that each hook may take; None for no limit.
        env_check: What a start does where a variable is not as the program read it before the dump: "error" starts the
            program conventionally, as for any other mismatch; "warn" says so on stderr; "off" records none.

    Returns:
        A context manager and decorator; see `Checkpoint` for its attributes.

    Raises:
        ValueError: No directory is given, or the value of a setting is invalid.
    """
    return Checkpoint(
        dir,
        then=then,
        engine=engine,
        replace=replace,
        if_exists=if_exists,
        if_impossible=if_impossible,
        options=options,
        memory=memory,
        exit=exit,
        resources=resources,
        fork_callbacks=fork_callbacks,
        hook_limit=hook_limit,
        env_check=env_check,
    )


def checkpoint_here(
    dir: str | os.PathLike[str] | None = None,  # noqa: A002
    **settings: Unpack[HereSettings],
) -> Checkpoint:
    """
    Checkpoint this process right here: `with checkpoint(dir): pass` as a call.

    Args:
        dir: As for `checkpoint`.
        settings: As for `checkpoint`; also `program`, the main program of the copies (default: this process's own), and
            `details`, a mapping to record in the manifest.

    Returns:
        The checkpoint, with its outcome: in each copy, and in the original with `then="continue"`.

    Raises:
        OperationRefused: criu refused; the process is as it was.
        HookError: A hook failed.
        FileExistsError: The directory is not empty.
        UnsupportedFeature: This process may not be dumped.
    """
    with Checkpoint(dir, **settings) as taken:
        pass
    return taken
