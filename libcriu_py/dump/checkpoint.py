"""The self-checkpoint: `with checkpoint(dir): ...`, its decorator and its function form."""

from __future__ import annotations

import functools
import gc
import inspect
import os
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar

from libcriu_py import overrides
from libcriu_py.findings import tracing
from libcriu_py.hooks import lifecycle, no_checkpoint, runner
from libcriu_py.hooks.lifecycle import Outcome, Return
from libcriu_py.hooks.thread_stop import Standstill
from libcriu_py.resources import BuiltIns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from libcriu_py.hooks.no_checkpoint import Timing
    from libcriu_py.program.main import Program
    from libcriu_py.resources import Settings
    from libcriu_py.snapshot.request import Request

    Then = Literal["exit", "continue"]
    EngineName = Literal["criu", "simulate"]
    MemoryKind = Literal["auto", "map", "copy"]
    Exit = Literal["normal", "fast"]

P = ParamSpec("P")
T = TypeVar("T")

DIRECTORY_VARIABLE = "LIBCRIU_PY_SNAPSHOT"
"""Overrides the directory that a program names, so that `libcriu-py snapshot -o` can."""
MEMORY_VARIABLE = "LIBCRIU_PY_MEMORY"
"""Overrides `memory` of a program, so that `libcriu-py snapshot --memory` can."""

EXIT_VARIABLE = "LIBCRIU_PY_EXIT"
"""Overrides `exit` of a program, so that `libcriu-py snapshot --exit` can."""


class Checkpoint:
    """
    One checkpoint of this process; `checkpoint` makes it.

    Usable once as a context manager (`with`, or `async with` where hooks are async), or any number of
    times as a decorator.

    Thread safety: the thread that leaves the block takes the checkpoint; others are frozen
    wherever they are, and go on from there in each copy.
    """

    def __init__(self, **settings: Any) -> None:
        """Take the arguments of `checkpoint_here`."""
        settings = overrides.overridden(settings)
        self._settings = settings
        self._built_ins = BuiltIns(settings.get("resources"))
        self._limit: float | None = settings.get("hook_limit")
        self._exit = _exit(settings.get("exit") or "normal")
        ours = {"resources", "hook_limit", "exit"}
        self._engine = _make_engine(**{name: value for name, value in settings.items() if name not in ours})
        self.timings: list[Timing] = []
        """How long each hook and built-in resource took; in a restored process, those of the original too."""
        self._entered = False
        self.outcome: Outcome | None = None
        """Which side of the checkpoint this process is; None until the block is left."""
        self.request: Request | None = None
        """What the restoring side asked for, in a restored process."""
        self.downtime: float | None = None
        """Seconds from dump to restore by the wall clock, in a restored process."""

    def __repr__(self) -> str:
        """Return directory and outcome."""
        outcome = "not taken" if self.outcome is None else self.outcome.value
        return f"<Checkpoint {self._settings['dir']!r}, {outcome}>"

    @property
    def restored(self) -> bool:
        """Whether this process is a restored copy."""
        return self.outcome is Outcome.RESTORED

    @property
    def stats(self) -> Mapping[str, int]:
        """
        CRIU's statistics of the dump (times in microseconds, counts of pages); empty when simulated.

        Raises:
            ImageError: They cannot be read.
        """
        if self.outcome is None or self.outcome is Outcome.SIMULATED:
            return {}
        from libcriu_py.images.readers import dump_stats

        path = self.request.snapshot if self.request is not None else _directory(self._settings["dir"])
        return dump_stats(os.path.join(path, "images"))

    def __enter__(self) -> Self:
        """Check that a dump can work, and reserve the directory."""
        if self._entered:
            message = "a checkpoint can be taken once; make another one"
            raise RuntimeError(message)
        self._entered = True
        tracing.begin()
        self._built_ins.note_variables()
        self._engine.prepare()
        self._built_ins.watch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the checkpoint, unless the block was left by an exception."""
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
        """Take the checkpoint, with async hooks in the running event loop."""
        if kind is not None:
            self._engine.abandon()
            return
        await self._take(in_loop=True)

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Make a function the warm-up: each call runs it, takes a checkpoint and returns its result."""
        settings = self._settings
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: P.args, **kwargs: P.kwargs) -> Any:
                async with Checkpoint(**settings):
                    return await function(*args, **kwargs)

            return wrapper  # type: ignore[return-value]

        @functools.wraps(function)
        def plain_wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            with Checkpoint(**settings):
                return function(*args, **kwargs)

        return plain_wrapper

    async def _take(self, *, in_loop: bool) -> None:
        taking = lifecycle.run(self._engine, self._built_ins, self._course(in_loop=in_loop), on_return=self._note)
        if self._exit == "normal":
            await taking
            return
        from libcriu_py import exit as ending

        frozen_before = gc.get_freeze_count() > 0
        ending.freeze()
        try:
            await taking
        finally:
            if self.restored:
                ending.end_fast_at_exit()
            elif not frozen_before:
                ending.unfreeze()

    def _course(self, *, in_loop: bool) -> runner.Course:
        return runner.Course(in_loop, self._limit, no_checkpoint.WAIT, self.timings, Standstill())

    def _note(self, returned: Return) -> None:
        self.outcome = returned.outcome
        self.request = returned.request
        self.downtime = returned.downtime


def _directory(given: str | os.PathLike[str] | None) -> str:
    path = os.environ.get(DIRECTORY_VARIABLE) or given
    if path is None:
        message = (
            f"no directory for the snapshot: give one to checkpoint(), or set {DIRECTORY_VARIABLE}, "
            "which `libcriu-py snapshot -o DIR` does"
        )
        raise ValueError(message)
    return os.fspath(path)


def _exit(given: str) -> str:
    wanted = os.environ.get(EXIT_VARIABLE) or given
    if wanted not in {"normal", "fast"}:
        message = f'exit must be "normal" or "fast", not {wanted!r}'
        raise ValueError(message)
    return wanted


def _make_engine(
    dir: str | os.PathLike[str] | None,  # noqa: A002
    then: str,
    engine: str,
    replace: bool,  # noqa: FBT001
    program: Program | None,
    details: Mapping[str, object] | None,
    options: Mapping[str, object] | None,
    memory: str,
) -> lifecycle.Engine:
    from libcriu_py.dump import engine as engines

    if then not in {"exit", "continue"}:
        message = f'then must be "exit" or "continue", not {then!r}'
        raise ValueError(message)
    memory = os.environ.get(MEMORY_VARIABLE) or memory
    if memory not in {"auto", "map", "copy"}:
        message = f'memory must be "auto", "map" or "copy", not {memory!r}'
        raise ValueError(message)
    if engine == "simulate":
        return engines.SimulateEngine()
    if engine != "criu":
        message = f'engine must be "criu" or "simulate", not {engine!r}'
        raise ValueError(message)
    replace = replace or bool(os.environ.get("LIBCRIU_PY_REPLACE"))
    return engines.CriuEngine(
        _directory(dir),
        then=then,
        replace=replace,
        program=program,
        details=details,
        options=options,
        memory=memory,
    )


def checkpoint(  # noqa: PLR0913 - each a setting of its own, given by name
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - the name it has everywhere here
    *,
    then: Then = "exit",
    engine: EngineName = "criu",
    replace: bool = False,
    options: Mapping[str, object] | None = None,
    memory: MemoryKind = "auto",
    exit: Exit = "normal",  # noqa: A002
    resources: Settings | None = None,
    hook_limit: float | None = None,
) -> Checkpoint:
    """
    Checkpoint this process when a block of code, its warm-up, is left.

        with checkpoint("snap"):
            model = load_model()
        main(sys.argv[1:])          # in each copy restored from "snap"

    An exception in the block means that no dump is taken. A dump that fails leaves the process as it
    was, and no directory.

    Args:
        dir: The snapshot's directory, which must not exist or be empty; LIBCRIU_PY_SNAPSHOT
            in the environment goes before it.
        then: "exit" ends the original with status 0 after the dump, without its atexit and finally
            code, which belongs to the copies; "continue" lets it go on. LIBCRIU_PY_THEN goes before it.
        engine: "criu", or "simulate" to run the same lifecycle, hooks included, without CRIU. LIBCRIU_PY_ENGINE goes
            before it.
        replace: Whether a snapshot that is there is replaced, in one step, when the new one is complete.
        options: Options for criu's dump, by the names of `DumpOptions`; for example `{"tcp_close": True}`. Those in the
            JSON object of LIBCRIU_PY_OPTIONS go before them.
        memory: "copy" has each copy's memory read at its start; "map" has it mapped from one file, page by page
            as it is used, where that is known to be safe; "auto" does so where it is worth it and no other
            allocator could get in the way. LIBCRIU_PY_MEMORY in the environment goes before it.
        exit: How copies end: "normal", or "fast", without the teardown of the interpreter, which for a program with
            torch takes longer than its restore; see `libcriu_py.exit` for what is left out. LIBCRIU_PY_EXIT in the
            environment goes before it.
        resources: Built-in resources to switch off or set, such as `{"random": False}`; see
            docs/resources.md. LIBCRIU_PY_RESOURCES in the environment goes before it.
        hook_limit: Seconds that each hook may take; None for as long as it likes. LIBCRIU_PY_HOOK_LIMIT goes before it.

    Returns:
        A context manager and decorator; see `Checkpoint` for its attributes.

    Raises:
        ValueError: There is no directory, or an argument is not one of the above.
    """
    return Checkpoint(
        dir=dir,
        then=then,
        engine=engine,
        replace=replace,
        program=None,
        details=None,
        options=options,
        memory=memory,
        exit=exit,
        resources=resources,
        hook_limit=hook_limit,
    )


def checkpoint_here(  # noqa: PLR0913 - each a setting of its own, given by name
    dir: str | os.PathLike[str] | None = None,  # noqa: A002
    *,
    then: Then = "exit",
    engine: EngineName = "criu",
    replace: bool = False,
    program: Program | None = None,
    details: Mapping[str, object] | None = None,
    options: Mapping[str, object] | None = None,
    memory: MemoryKind = "auto",
    exit: Exit = "normal",  # noqa: A002
    resources: Settings | None = None,
    hook_limit: float | None = None,
) -> Checkpoint:
    """
    Checkpoint this process right here: `with checkpoint(dir): pass` as a call.

    Args:
        dir: As for `checkpoint`.
        then: As for `checkpoint`.
        engine: As for `checkpoint`.
        replace: As for `checkpoint`.
        program: The main program that the copies run, where it is not the one of this process.
        details: What is to be noted in the manifest.
        options: As for `checkpoint`.
        memory: As for `checkpoint`.
        exit: As for `checkpoint`.
        resources: As for `checkpoint`.
        hook_limit: As for `checkpoint`.

    Returns:
        What came of it, in each copy, and in the original unless that has ended.

    Raises:
        OperationRefused: criu refused; nothing has changed.
        HookError: A hook failed.
        FileExistsError: The directory is not empty.
        UnsupportedFeature: This process may not be dumped.
    """
    taken = Checkpoint(
        dir=dir,
        then=then,
        engine=engine,
        replace=replace,
        program=program,
        details=details,
        options=options,
        memory=memory,
        exit=exit,
        resources=resources,
        hook_limit=hook_limit,
    )
    with taken:
        pass
    return taken
