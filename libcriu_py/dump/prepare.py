"""
Prepare an interpreter for a program, up to the point where the program's main module would start.

``libcriu-py snapshot`` starts `command_line`, with a plan in JSON (see `Plan`). The process imports what the main
module will import, takes a snapshot of itself, and runs the main module afresh in each copy.

Whatever this process loads becomes part of the snapshot, and costs each restore about 2.5 microseconds per 4 kB page.
So forked children parse the source of the main module and do the trial runs, and return only names.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, NamedTuple, NoReturn

from libcriu_py.dump import changes
from libcriu_py.errors import CriuError, HookError, in_words
from libcriu_py.findings import tracing
from libcriu_py.hooks.lifecycle import Continuation
from libcriu_py.program import environment, interpreter, preload, reads
from libcriu_py.program.main import (
    Program,
    hide_frames,
    parse_program,
    path0,
    precompile,
    prepare_main,
    run_main,
    set_path0,
)
from libcriu_py.resources import BuiltIns
from libcriu_py.settings import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.dump.checkpoint import Checkpoint

NO_SNAPSHOT = 119
"""Exit status if no snapshot was made and stderr says why. Programs that checkpoint themselves have their own."""


class Plan(NamedTuple):
    """
    What to prepare.

    Attributes:
        dir: The snapshot directory.
        program: What the copies run; an interpreter gets its program at each restore. Its value has options of Python
            that were in force, one a line.
        argv: sys.argv[1:] while modules are imported, and for a program that checkpoints itself.
        preload: Modules to import; one that cannot be imported is an error.
        learn: Arguments of trial runs, whose imports are imported too.
        warm_up: Arguments of runs in the process that is dumped (see `libcriu_py.program.warm_up`).
        own: Whether the program checkpoints itself; None to find out from its source.
        exit: How copies end: "normal", or "fast", which skips interpreter teardown.
    """

    dir: str
    program: Program
    argv: Sequence[str] = ()
    preload: Sequence[str] = ()
    learn: Sequence[Sequence[str]] = ()
    warm_up: Sequence[Sequence[str]] = ()
    own: bool | None = None
    exit: str = "normal"

    def to_json(self) -> str:
        """Return the plan as one line of ASCII for the command line; names that are not UTF-8 survive."""
        import json

        return json.dumps({**self._asdict(), "program": self.program._asdict()})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """
        Read what `to_json` wrote; missing keys get their defaults.

        Raises:
            ValueError: The text is not JSON.
            TypeError: There is no dir or program, or an unknown key.
        """
        import json

        values: dict[str, Any] = json.loads(text)
        values["program"] = Program(**values["program"])
        values["learn"] = values.get("learn") or ()
        return cls(**values)


def command_line(python: str, plan: Plan) -> list[str]:
    """
    Return the command that prepares a program and dumps it.

    The directory of this package comes first on sys.path, instead of the working directory (`interpreter.command`),
    until the program's own entry replaces it.

    Args:
        python: The interpreter.
        plan: What it does.
    """
    options = plan.program.value.split("\n") if plan.program.kind == "interpreter" and plan.program.value else ()
    code = "from libcriu_py.dump.prepare import main; main()"
    return interpreter.command(code, plan.to_json(), python=python, options=options)


def main() -> None:
    """
    Carry out the plan in the first argument; in a copy, run the program.

    Raises:
        SystemExit: The program could not be prepared, or it raised this itself.
    """
    plan = Plan.from_json(sys.argv[1])
    program = plan.program
    is_bare = program.kind == "interpreter"
    set_path0(None if is_bare else path0(program))
    if is_bare and sys.path[0] == interpreter.HERE:
        del sys.path[0]  # which -I and -P keep
    argv, orig_argv = sys.argv, sys.orig_argv
    first = program.value if program.kind == "script" else ""
    argv[:] = [first, *plan.argv]
    changes.note()
    # Copies run the main module anew.
    reads.begin(main=False)
    if is_bare:
        from libcriu_py.dump import python_options

        python_options.note()
    built_ins = BuiltIns()
    built_ins.note_variables()
    # From here on, any seed is the program's own.
    built_ins.watch()
    tracing.begin()
    added = preload.extend_path(variable("LIBCRIU_PY_PRELOAD_PATH"))
    details = {**make_ready(plan), "preload": [*plan.preload], "exit": plan.exit}
    for entry in added:
        sys.path.remove(entry)
    _warn()
    # The command line of a conventional start, which the launcher falls back to when a restore is impossible. Modules
    # may hold on to the lists, so the copies must use the same ones.
    sys.argv, sys.orig_argv = argv, orig_argv
    argv[:] = [first]
    orig_argv[:] = [sys.executable, *program.arguments()]
    if is_bare:
        from libcriu_py.dump import python_options

        program = Program("interpreter", python_options.facts(program.value))
        plan = plan._replace(program=program)

    path = details.get("path")
    continuation = _Continuation(program, path if isinstance(path, str) else None, plan.exit)
    try:
        here = _checkpoint(plan, details, continuation)
    except HookError:
        raise  # its traceback shows where the program's own code failed; also in a copy
    except (CriuError, OSError) as error:
        _fail(in_words(error))
    if continuation.has_run:
        continuation.raise_error()
        return
    asked = here.request.main if here.request is not None else None
    if plan.exit == "normal":
        _run(asked or program, continuation.path)
        return
    from libcriu_py.exit import run_and_exit_fast

    run_and_exit_fast(lambda: _run(asked or program, continuation.path))


def _checkpoint(plan: Plan, details: dict[str, object], continuation: _Continuation) -> Checkpoint:
    from libcriu_py.dump.checkpoint import Checkpoint

    # Programs of an interpreter compare readings with those of other processes; nothing in it has been waiting.
    resources = {"clock": {"host": True}} if plan.program.kind == "interpreter" else None
    taken = Checkpoint(plan.dir, then="exit", program=plan.program, details=details, resources=resources)
    taken.continue_with(continuation, frozen=plan.exit == "fast")
    with taken:
        pass
    return taken


class _Continuation(Continuation):
    """The program, which a copy runs without returning from the dump."""

    def __init__(self, program: Program, path: str | None, ending: str) -> None:
        self.path = path
        self._program = program
        self._is_fast = ending == "fast"
        self.main = prepare_main(program, path=path)
        self.has_run = False
        self.error: BaseException | None = None

    def raise_error(self) -> None:
        """Raise what the program has raised, and keep nothing of its frames: this object is never collected."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error

    def ending(self) -> object:
        from libcriu_py.exit import for_ending

        return for_ending() if self._is_fast else None

    def run(self) -> None:
        _run(self._program, self.path)

    def ended(self, error: BaseException | None) -> None:
        code: object = error.code if isinstance(error, SystemExit) else None
        if self._is_fast and (
            error is None or (isinstance(error, SystemExit) and (code is None or isinstance(code, int)))
        ):
            from libcriu_py.exit import exit_fast

            exit_fast(code if isinstance(code, int) else 0)
        self.has_run = True
        self.error = error
        if error is None or isinstance(error, SystemExit) or self.main is None or error.__traceback__ is None:
            return
        if error.__traceback__.tb_frame.f_code is self.main.code:
            hide_frames(error)


def _run(program: Program, path: str | None) -> None:
    """Run a program in the copy, with the arguments of the restore."""
    if program.kind != "interpreter":
        run_main(program, sys.argv[1:], path=path)
        return
    try:
        program, args = parse_program(sys.argv[1:])
    except ValueError:
        program, args = _follow_options(sys.argv[1:])
    run_main(program, args)


def _follow_options(arguments: Sequence[str]) -> tuple[Program, list[str]]:
    """Follow options of Python; the launcher has refused others where it may start a new interpreter."""
    from libcriu_py.dump import python_options

    try:
        return python_options.follow(arguments)
    except ValueError:
        os.execv(sys.executable, [sys.executable, *arguments])


def make_ready(plan: Plan) -> dict[str, object]:
    """
    Import the modules that the plan names and those that its program will import.

    A program that checkpoints itself replaces this process instead, and the function does not return.

    Args:
        plan: What to prepare.

    Returns:
        Details that ``libcriu-py inspect`` shows: "preloaded", the requested modules that were not loaded before;
        "modules", how many modules were loaded in all; "seconds", how long that took; "warm_up", the arguments of the
        warm-up runs, if any; "path", the first entry of sys.path in copies, if that is not their working directory.

    Raises:
        SystemExit: A module of the preload list, or the main module, cannot be loaded.
    """
    start = time.monotonic()
    details: dict[str, object] = {}
    wanted: list[preload.Wanted] = []
    if plan.program.kind != "interpreter":
        if plan.own:
            _exec_program(plan.program, plan)
        for args in plan.learn:
            wanted += preload.learn(plan.program, args)
        reading = preload.read(plan.program)
        if reading.error:
            _fail(reading.error)
        if reading.checkpoints_itself and plan.own is None:
            _exec_program(plan.program, plan)
        if reading.found_here:
            details["path"] = path0(plan.program)
        wanted += reading.wanted
        if reading.is_source:
            precompile(plan.program)
    before = set(sys.modules)
    try:
        preloaded = preload.import_modules([(name, ()) for name in plan.preload], strict=True)
    except ImportError as error:
        _fail(f"cannot preload: {error}")
    preloaded += preload.import_modules(wanted)
    _warm_up(plan)
    modules = len(set(sys.modules) - before)
    seconds = round(time.monotonic() - start, 3)
    preload.report(f"imported {modules} modules in {seconds:.1f} s")
    if plan.warm_up:
        details["warm_up"] = [list(args) for args in plan.warm_up]
    return {**details, "preloaded": preloaded, "modules": modules, "seconds": seconds}


def _warn() -> None:
    """Warn of temporary files, which may be gone when a copy starts, and of mappings that copies share."""
    if variable("LIBCRIU_PY_PREFLIGHT") == "report":
        return  # a report lists them
    from libcriu_py.findings import shared_mappings, temporary

    texts = (temporary.warning() if "tempfile" in sys.modules else None, shared_mappings.warning())
    for text in filter(None, texts):
        preload.report(text)


def _warm_up(plan: Plan) -> None:
    """Run the program as often as the plan says."""
    if not plan.warm_up:
        return
    from libcriu_py.program.warm_up import CannotWarmUpError, warm_up

    try:
        for args in plan.warm_up:
            warm_up(plan.program, args)
    except CannotWarmUpError as error:
        preload.report(f"no snapshot was made: {error}")
        sys.stdout.flush()
        os._exit(NO_SNAPSHOT)  # the interpreter would wait for threads that the program left


def _exec_program(program: Program, plan: Plan) -> NoReturn:
    """Replace this process by a conventional start of the program, with the directory in its environment."""
    if plan.warm_up:
        _fail("the program checkpoints itself, so it must warm itself up before that; leave out --warm-up")
    preload.report("the program checkpoints itself; it is started unchanged")
    environment.undo_changes()  # for example those of a sitecustomize, which runs again
    os.environ["LIBCRIU_PY_SNAPSHOT"] = plan.dir
    if plan.exit != "normal":
        os.environ["LIBCRIU_PY_EXIT"] = plan.exit
    os.execv(sys.executable, [sys.executable, *program.arguments(), *plan.argv])  # no shell is wanted


def _fail(problem: str) -> NoReturn:
    """Report on stderr why no snapshot was made, and end."""
    preload.report(f"no snapshot was made: {problem}")
    raise SystemExit(NO_SNAPSHOT)
