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
from libcriu_py.dump.continuation import ProgramContinuation
from libcriu_py.errors import CriuError, HookError, in_words
from libcriu_py.findings import is_report_wanted, tracing
from libcriu_py.program import environment, interpreter, preload, reads
from libcriu_py.program.main import Program, path0, precompile, set_path0
from libcriu_py.program.progress import Progress
from libcriu_py.resources import BuiltIns
from libcriu_py.settings import variable
from libcriu_py.snapshot import sources

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
        learn_until: When to end these, and one with `argv` where there is none; None if they end by themselves.
        warm_up: Arguments of runs in the process that is dumped (see `libcriu_py.program.warm_up`).
        own: Whether the program checkpoints itself; None to find out from its source.
        exit: How copies end: "normal", or "fast", which skips interpreter teardown.
        modules: Modules to import where they can be, instead of those that the program's source names; None for those.
        compared: Files that their import reads, as path, size and time of change: a change makes the snapshot stale.
        entry: The program's directory in the cache of automatic snapshots, in which copies note what they import.
    """

    dir: str
    program: Program
    argv: Sequence[str] = ()
    preload: Sequence[str] = ()
    learn: Sequence[Sequence[str]] = ()
    learn_until: str | None = None
    warm_up: Sequence[Sequence[str]] = ()
    own: bool | None = None
    exit: str = "normal"
    modules: Sequence[str] | None = None
    compared: Sequence[tuple[str, int, int]] = ()
    entry: str | None = None

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
    details = _made_ready(plan)
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
    continuation = ProgramContinuation(program, path if isinstance(path, str) else None, plan.exit, plan.entry)
    try:
        here = _checkpoint(plan, details, continuation)
    except HookError:
        raise  # its traceback shows where the program's own code failed; also in a copy
    except (CriuError, OSError) as error:
        _fail(in_words(error))
    except KeyboardInterrupt:
        if continuation.has_run:
            raise
        _end_by_interrupt()
    _go_on(plan, continuation, here.request.main if here.request is not None else None)


def _go_on(plan: Plan, continuation: ProgramContinuation, asked: Program | None) -> None:
    """Do in a copy what is left to do when the dump has returned."""
    if continuation.has_run:
        continuation.raise_error()
    elif plan.exit == "normal":
        continuation.run_instead(asked)
    else:
        from libcriu_py.exit import run_and_exit_fast

        run_and_exit_fast(lambda: continuation.run_instead(asked))


def _repeatable(plan: Plan) -> dict[str, object]:
    """Return what makes this snapshot once more, where it is an interpreter's (libcriu_py.copies.interpreter.renew)."""
    options = plan.program.value.split("\n") if plan.program.value and plan.program.kind == "interpreter" else []
    return {"preload": [*plan.preload], "options": options, "exit": plan.exit}


def _made_ready(plan: Plan) -> dict[str, object]:
    added = preload.extend_path(variable("LIBCRIU_PY_PRELOAD_PATH"))
    try:
        return {**make_ready(plan), **_repeatable(plan), "preload_path": added}
    except KeyboardInterrupt:
        _end_by_interrupt()
    finally:
        for entry in (*added, *sources.more_path):
            sys.path.remove(entry)
        if plan.program.kind == "module":
            sources.more_path += _of_preloaded(path0(plan.program))


def _of_preloaded(here: str) -> list[str]:
    """Return the working directory, if modules of it are loaded, which copies of ``-m`` import first."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    own = (file for file in files if isinstance(file, str) and file.startswith(os.path.join(here, "")))
    return [here] if any(preload.origin(os.path.dirname(file)) == "own" for file in own) else []


def _checkpoint(plan: Plan, details: dict[str, object], continuation: ProgramContinuation) -> Checkpoint:
    from libcriu_py.dump.checkpoint import Checkpoint

    # Programs of an interpreter compare readings with those of other processes; nothing in it has been waiting.
    resources = {"clock": {"host": True}} if plan.program.kind == "interpreter" else None
    taken = Checkpoint(plan.dir, then="exit", program=plan.program, details=details, resources=resources)
    taken.continue_with(continuation, frozen=plan.exit == "fast")
    with taken:
        pass
    return taken


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
    reading = None
    if plan.program.kind != "interpreter":
        reading = _read(plan.program, plan, details, wanted)
    elif plan.modules is not None:
        wanted += [(name, ()) for name in plan.modules]
    before = set(sys.modules)
    try:
        with Progress("importing modules"):
            preloaded = preload.import_modules([(name, ()) for name in plan.preload], strict=True)
            preloaded += preload.import_modules(wanted)
    except ImportError as error:
        _fail(f"cannot preload: {error}")
    _warm_up(plan)
    modules = len(set(sys.modules) - before)
    seconds = round(time.monotonic() - start, 3)
    preload.report(f"imported {modules} module{'' if modules == 1 else 's'} in {seconds:.1f} s")
    if plan.entry is not None:
        details["compared"] = [list(file) for file in plan.compared]
    else:
        _advise(plan, reading)
    if plan.warm_up:
        details["warm_up"] = [list(args) for args in plan.warm_up]
    return {**details, "preloaded": preloaded, "modules": modules, "seconds": seconds}


def _read(program: Program, plan: Plan, details: dict[str, object], wanted: list[preload.Wanted]) -> preload.Reading:
    """Read a program, and add what it will import; one that checkpoints itself replaces this process instead."""
    if plan.own:
        _exec_program(program, plan)
    wanted += _learn(program, plan)
    reading = preload.read(program)
    if reading.error:
        _fail(reading.error)
    if reading.checkpoints_itself and plan.own is None:
        if plan.modules is not None:
            _fail("the program takes its own checkpoint")
        _exec_program(program, plan)
    if reading.found_here and plan.entry is not None:
        _fail("the module is in the working directory, and another may be in that of the next start")
    if reading.found_here:
        details["path"] = path0(program)
    if reading.is_source:
        precompile(program)
    wanted += reading.wanted if plan.modules is None else [(name, ()) for name in plan.modules]
    return reading


def _learn(program: Program, plan: Plan) -> list[preload.Wanted]:
    """Do the trial runs, and return what they import."""
    wanted: list[preload.Wanted] = []
    if not plan.learn and plan.learn_until is None:
        return wanted
    from libcriu_py.program import trial

    until = None if plan.learn_until is None else trial.Until.parse(plan.learn_until)
    for args in plan.learn or [plan.argv]:
        try:
            learnt = trial.learn(program, args, until)
        except ChildProcessError as error:
            _fail(str(error))
        wanted += learnt.wanted
        sources.more_path += preload.extend_path(os.pathsep.join(learnt.path))
    return wanted


def _advise(plan: Plan, reading: preload.Reading | None) -> None:
    """Name what each copy will import by itself, where nobody has asked for what a run imports."""
    late = [name for name in (reading.late if reading else ()) if name not in sys.modules]
    if late and not (plan.learn or plan.learn_until or plan.warm_up) and not is_report_wanted():
        names = ", ".join([*late[:3], *(["..."] if len(late) > 3 else [])])
        preload.report(f'tip: the main module imports {names} only as it runs; --learn "ARGS" imports what a run does')


def _warn() -> None:
    """Warn of temporary files, which may be gone when a copy starts, and of mappings that copies share."""
    if is_report_wanted():
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


def _end_by_interrupt() -> NoReturn:
    """End by SIGINT, without a traceback: `libcriu-py snapshot` says what there is to say."""
    import signal

    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(NO_SNAPSHOT)  # not reached


def _fail(problem: str) -> NoReturn:
    """Report on stderr why no snapshot was made, and end."""
    preload.report(f"no snapshot was made: {problem}")
    raise SystemExit(NO_SNAPSHOT)
