"""``libcriu-py snapshot``: warm up a program, or let it do so itself, and save it."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import USAGE, add_program, add_setting, build, carry_out, size, split_words
from libcriu_py.cli._summary import quoted, show
from libcriu_py.dump.prepare import NO_SNAPSHOT, Plan, command_line
from libcriu_py.errors import SnapshotError
from libcriu_py.program.command import find_command
from libcriu_py.program.main import STDIN, Program
from libcriu_py.program.progress import Progress
from libcriu_py.settings import used_by, variable, words
from libcriu_py.snapshot import remains
from libcriu_py.snapshot.manifest import Snapshot
from libcriu_py.snapshot.record import MANIFEST

if TYPE_CHECKING:
    import argparse

_BEGUN = 1 << 20
"""Bytes in a snapshot's directory that more than what reserves it has written."""

HELP = "warm up a program and save it"

EPILOG = """\
A program that calls libcriu_py.checkpoint() itself runs with its arguments, and with DIR instead of its own directory.
Any other program is stopped just before its main module starts, with these modules imported:
  - those that the main module imports at top level, according to its source
  - those of --preload
  - those that a trial run with the arguments of --learn imports; --learn-until ends that of a program that never ends
With --warm-up, the program also runs to its end, twice, in the process that is saved. Every copy then has its caches,
specialised bytecode and thread pools, and everything else that a run leaves in modules.
In each restored copy, the main module runs from its start, with the arguments of the restore.

examples:
  libcriu-py snapshot report.py                       in report.snap
  libcriu-py snapshot -o snap --learn "--year 2024 in.csv" report.py
  libcriu-py snapshot -o snap --warm-up "--dry-run in.csv" report.py
  libcriu-py snapshot -o snap --learn-until 8000 -m http.server 8000
  libcriu-py snapshot -o snap black                   a command on PATH
  libcriu-py snapshot --python -o py --preload pandas,torch   an interpreter: libcriu-py run py script.py, or -c, -m

exit status:
  0  the snapshot was made
  1  it was not; stderr says why, and what to do
  2  wrong command line
"""

WITH_VALUE = {word for setting in used_by("snapshot") if setting.kind != "flag" for word in setting.options}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything up to the program; what follows is the program's."""
    parser = build(
        "snapshot",
        usage="[-o DIR] [OPTIONS] [-m MODULE | SCRIPT | COMMAND] [ARGUMENTS ...]",
        description="Start a program, warm it up, and save it in DIR (default: NAME.snap) for `libcriu-py run`.",
        epilog=EPILOG,
    )
    for setting in used_by("snapshot"):
        if setting.name not in {"python", "module"}:
            add_setting(parser, setting.name, "snapshot")
    add_program(parser)
    parser.set_defaults(store=variable("LIBCRIU_PY_STORE"))
    return parser


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """
    Split the command's own words from the program's arguments.

    Args:
        argv: The arguments of the subcommand.

    Returns:
        Everything up to the module of -m or the script, and the rest.
    """
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
        word, following = argv[place], argv[place + 1 : place + 2]
        if word.startswith("-m"):
            place += 1 if word == "-m" else 0
            break
        if word == "--":
            place += 1
            break
        place += 2 if _takes(word, following) else 1
    return argv[: place + 1], argv[place + 1 :]


def _takes(word: str, following: list[str]) -> bool:
    """Return whether an option takes the word that follows; --python can stand alone."""
    return word in WITH_VALUE and (word != "--python" or (bool(following) and not following[0].startswith("-")))


def with_values(own: list[str]) -> list[str]:
    """
    Join long options with their values, because argparse takes a separate value such as "--version" for an option.

    Args:
        own: The command's own words, from `split`.

    Returns:
        The same, with "--learn --version" as "--learn=--version".
    """
    joined: list[str] = []
    place = 0
    while place < len(own):
        word, following = own[place], own[place + 1 : place + 2]
        has_value = bool(following) and word.startswith("--") and _takes(word, following)
        joined.append(f"{word}={following[0]}" if has_value else word)
        place += 2 if has_value else 1
    return joined


def main(argv: list[str]) -> int:
    """Run the subcommand, and return its exit status."""
    own, arguments = split(argv)
    return carry_out(build_parser(), with_values(own), lambda options: _snapshot(options, arguments))


def _snapshot(options: argparse.Namespace, arguments: list[str]) -> int:
    """Check what the options name, and make the snapshot."""
    preload = [name.strip() for names in options.preload for name in names.split(",") if name.strip()]
    words: list[str] = []
    if options.target is not None and (
        options.python == "" or (options.python and options.target.startswith("-") and options.target != "-")
    ):
        words, options.target, arguments = [options.target, *arguments], None, []
    fixed = _fixed(words)
    if fixed is None or (options.python == "" and options.module is not None):
        sys.stderr.write("libcriu-py snapshot: --python saves an interpreter, which gets its program at each start\n")
        return USAGE
    if options.module is None and options.target is None:
        if not preload and options.python is None:
            sys.stderr.write(
                "libcriu-py snapshot: name a program (-m MODULE, SCRIPT or COMMAND), or modules with --preload\n"
            )
            return USAGE
        if options.learn or options.learn_until is not None or options.warm_up or options.own:
            sys.stderr.write("libcriu-py snapshot: --learn, --learn-until, --warm-up and --self need a program\n")
            return USAGE
    python = options.python or sys.executable
    options.dir = options.dir or variable("LIBCRIU_PY_SNAPSHOT") or default_directory(options.module or options.target)
    until = _learn_until(options.learn_until)
    plan = Plan(
        dir=os.path.abspath(options.dir),
        program=find_program(options.module, options.target, python) or Program("interpreter", "\n".join(fixed)),
        argv=arguments,
        preload=preload,
        learn=[split_words("--learn", args) for args in options.learn],
        learn_until=until,
        warm_up=[split_words("--warm-up", args) for args in options.warm_up],
        own=options.own or None,
        exit=options.exit or "normal",
    )
    return make_snapshot(plan, options)


def _learn_until(text: str | None) -> str | None:
    """Return the condition of --learn-until, a path made absolute, if it is one."""
    from libcriu_py.program.trial import Until

    try:
        until = None if text is None else Until.parse(text)
    except ValueError as error:
        message = f"--learn-until {text!r}: {error}"
        raise SnapshotError(message) from None
    return until.path or text if until else None


def default_directory(name: str | None) -> str:
    """Return the directory of a snapshot for which none was named: after its program, in the working directory."""
    if name is None:
        return "python.snap"
    stem, extension = os.path.splitext(os.path.basename(os.path.abspath(name)))
    return f"{stem}{'' if extension in {'.py', '.pyc', '.pyz', '.zip'} else extension}.snap"


def _fixed(words: list[str]) -> list[str] | None:
    """Return those options of Python that copies need too; None if another word is among them."""
    from libcriu_py.dump import python_options

    try:
        return python_options.fixed(words)
    except ValueError:
        return None


def find_program(module: str | None, target: str | None, python: str) -> Program | None:
    """
    Return the program to run, a script by its absolute path; None if nothing is given.

    Args:
        module: The module of -m.
        target: Path of a script, directory or zip file, or the name of a command.
        python: The interpreter.

    Raises:
        SnapshotError: There is no such file or command, or Python cannot run it.
    """
    if module is not None:
        return Program("module", module)
    if target is None:
        return None
    if target in STDIN:
        message = "a program on standard input cannot be run again; save it in a file"
        raise SnapshotError(message)
    if os.path.exists(target):
        return Program("script", os.path.abspath(target))
    if os.sep in target or target.endswith(".py"):
        message = f"{target}: no such file"
        raise SnapshotError(message)
    return find_command(target, python=python)


def make_snapshot(plan: Plan, options: argparse.Namespace) -> int:
    """
    Run the program until it is saved, and print the result.

    Args:
        plan: What to run.
        options: The command line.

    Returns:
        The exit status.

    Raises:
        SnapshotError: The snapshot's path is taken, or not writable.
        CriuError: The program cannot be started so that it can be saved.
    """
    start = time.monotonic()
    _refuse_existing(plan.dir, replace=options.replace)
    remains.sweep(plan.dir)
    if options.store:
        _refuse_unwritable(os.path.abspath(options.store), f"{options.store} cannot be used as a store")
    if options.script is not None:
        from libcriu_py.copies.launch_script import refuse_place

        refuse_place(options.script, plan.dir)
    before = _version(plan.dir)
    status = _run_program(plan, options)
    if status == -signal.SIGINT:
        raise KeyboardInterrupt
    if status == -signal.SIGTRAP and _can_start_again(plan):
        sys.stderr.write("libcriu-py: criu died in the dump, and the program with it; trying once more\n")
        status = _run_program(plan, options)
    # If the program has said why it was not saved, a snapshot that exists now is another command's.
    if status == NO_SNAPSHOT or _version(plan.dir) in {None, before}:
        if status != NO_SNAPSHOT:
            sys.stderr.write(f"libcriu-py: no snapshot was made: {_why_not(status, plan)}\n")
        return 1
    if options.store:
        _share(plan.dir, options.store)
    if options.script is not None:
        from libcriu_py.copies.launch_script import write_launch_script

        write_launch_script(options.script, plan.dir, mode=options.mode)
    show(Snapshot.open(plan.dir), options.dir, time.monotonic() - start)
    if options.script is not None:
        print(f"or start: {quoted(options.script, starts=True)}")
    return 0


def _share(directory: str, store: str) -> None:
    """Put large blocks of a snapshot into a store, if its engine can do that."""
    snapshot = Snapshot.open(directory)
    if snapshot.engine == "native":
        sys.stderr.write(
            "libcriu-py: nothing is in the store: it shares memory between snapshots of criu only (--engine criu)\n"
        )
    elif snapshot.memory_key is not None:
        from libcriu_py.cli.optimize import share

        share(directory, store)


def _run_program(plan: Plan, options: argparse.Namespace) -> int:
    """Run the program until it is saved, and return its exit status."""
    from libcriu_py.dump.spawn import spawn_for_snapshot

    command = command_line(options.python or sys.executable, plan)
    with Progress(lambda: _saving(plan.dir)):
        return spawn_for_snapshot(command, env=_environment(options), mode=options.mode)


def _saving(directory: str) -> str:
    """Return how much of a snapshot has been written, for people; empty before that."""
    sizes = [os.lstat(path).st_blocks * 512 for path in remains.unfinished(directory)]
    return f"saving {directory}: {size(sum(sizes))}" if sum(sizes) > _BEGUN else ""


def _can_start_again(plan: Plan) -> bool:
    """Return whether a program has done nothing yet when it is dumped, but for the imports of its main module."""
    from libcriu_py.program import preload

    if plan.own or plan.learn or plan.learn_until or plan.warm_up:
        return False
    return plan.program.kind == "interpreter" or not preload.read(plan.program).checkpoints_itself


def _refuse_existing(directory: str, *, replace: bool) -> None:
    """Refuse a directory that the checkpoint would refuse, before the program starts."""
    if not os.path.lexists(directory):
        _refuse_unwritable(os.path.dirname(directory), f"{directory} cannot be made")
        return
    if not os.path.isdir(directory):
        message = f"{directory} exists and is not a directory; remove it, or choose another directory with -o"
        raise SnapshotError(message)
    if os.access(directory, os.R_OK | os.X_OK) and not os.listdir(directory):
        _refuse_unwritable(directory, f"{directory} cannot be used")
        return
    if remains.is_left(directory):
        # The program may be in a pid namespace, where it cannot see whether the maker lives.
        remains.clear_left(directory)
        return
    if not os.path.exists(os.path.join(directory, MANIFEST)):
        message = f"{directory} exists and is not a snapshot; remove it, or choose another directory with -o"
        raise SnapshotError(message)
    if not replace:
        message = f"{directory} is already a snapshot; use --replace to replace it"
        raise SnapshotError(message)


def _refuse_unwritable(directory: str, consequence: str) -> None:
    """Refuse a directory that cannot be written to, or be created."""
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        message = f"{consequence}: {directory} is not a directory"
    elif not os.access(directory, os.W_OK | os.X_OK):
        message = f"{consequence}: you have no permission to write to {directory}; choose another place"
    else:
        return
    raise SnapshotError(message)


def _version(directory: str) -> tuple[int, int] | None:
    """Return what changes when another manifest replaces this one; None if there is none."""
    try:
        status = os.stat(os.path.join(directory, MANIFEST))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Return this environment with the variables that override the settings of the program's checkpoint."""
    env = dict(os.environ)
    # Whatever a program that checkpoints itself would make of it: this command was asked for a snapshot.
    env["LIBCRIU_PY_IF_EXISTS"] = "replace" if options.replace else "error"
    env["LIBCRIU_PY_IF_IMPOSSIBLE"] = "raise"
    env["LIBCRIU_PY_COMMAND"] = "1"
    env["LIBCRIU_PY_AUTO"] = "0"  # a copy of a warm interpreter would have more than it imports
    if options.engine:
        env["LIBCRIU_PY_ENGINE"] = options.engine
    if options.memory:
        env["LIBCRIU_PY_MEMORY"] = options.memory
    if options.env_check:
        env["LIBCRIU_PY_ENV_CHECK"] = options.env_check
    if options.fork_callbacks:
        env["LIBCRIU_PY_FORK_CALLBACKS"] = options.fork_callbacks
    for name, added in (("LIBCRIU_PY_SCRUB", options.scrub), ("LIBCRIU_PY_KEEP_ENV", options.keep_env)):
        if added:
            env[name] = ",".join([*words(name), *added])
    return env


def _why_not(status: int, plan: Plan) -> str:
    """Return why the program was probably not saved, and what to do."""
    if status < 0:
        return f"the program died of signal {-status}"
    if status > 0:
        return f"the program ended with status {status}; see its messages above"
    if plan.own:
        return (
            "the program ended with status 0 and did not checkpoint itself; "
            "leave out --self, or pass arguments that make it reach its checkpoint()"
        )
    if plan.warm_up:
        return "the program ended the process with status 0 during the warm-up (os._exit?); leave out --warm-up"
    return (
        "the program ended with status 0 before its checkpoint(); pass arguments that make it reach that call, "
        "or remove the call, and libcriu-py saves the program before its main module starts"
    )
