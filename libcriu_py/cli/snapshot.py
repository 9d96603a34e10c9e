"""``libcriu-py snapshot``: make a program ready, or let it make itself ready, and save it."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time

from libcriu_py.cli._arguments import MODE_HELP, MODES, USAGE, build, parse, report, size
from libcriu_py.dump.prepare import TOLD, Plan, command_line
from libcriu_py.errors import CriuError, SnapshotError
from libcriu_py.program.command import find_command
from libcriu_py.program.main import STDIN, Program
from libcriu_py.snapshot.manifest import MANIFEST, Snapshot

SPIN_COUNT = "3000"
"""Rounds, some 50 us, that threads of GCC's OpenMP had better wait for work before they sleep; 300,000 by default."""

HELP = "make a program ready and save it"

EPILOG = """\
A program that calls libcriu_py.checkpoint() itself is run with its arguments and DIR in place of its own directory.
Any other is stopped just before its main module would start, with its imports done:
  - the modules that the main module imports at top level, read from its source
  - those of --preload
  - those that a trial run with the arguments of --learn imports
With --warm-up it is also run to its end, twice, in the process that is saved: caches, specialised bytecode and pools of
threads are then in every copy, and so is all else that a run leaves in modules.
In each restored copy the main module then runs from its start, with the arguments of the restore.

examples:
  libcriu-py snapshot -o snap report.py
  libcriu-py snapshot -o snap --learn "--year 2024 in.csv" report.py
  libcriu-py snapshot -o snap --warm-up "--dry-run in.csv" report.py
  libcriu-py snapshot -o snap -m http.server
  libcriu-py snapshot -o snap black                   a command on PATH
  libcriu-py snapshot -o py --preload pandas,torch    no program: run DIR script.py names one

exit status:
  0  the snapshot is there
  1  it is not, and what to do is on stderr
  2  wrong command line
"""

WITH_VALUE = {
    *("-o", "--output", "--preload", "--learn", "--warm-up", "--mode", "--python"),
    *("--memory", "--store", "--exit", "--script", "--scrub"),
}


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser of everything up to the program; what follows is the program's.
    """
    parser = build(
        "snapshot",
        usage="-o DIR [OPTIONS] [-m MODULE | SCRIPT | COMMAND] [ARGUMENTS ...]",
        description="Start a program, make it ready, and save it in DIR for `libcriu-py run`.",
        epilog=EPILOG,
    )
    output = parser.add_argument("-o", "--output", metavar="DIR", required=True, help="the snapshot to make")
    output.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    parser.add_argument("--preload", metavar="A,B", action="append", default=[], help="modules to import; repeatable")
    parser.add_argument(
        "--learn",
        metavar='"ARGS"',
        action="append",
        default=[],
        help="run the program with these arguments first and import what it imported; repeatable",
    )
    parser.add_argument(
        "--warm-up",
        metavar='"ARGS"',
        action="append",
        default=[],
        help="run the program with these arguments in the process that is saved, twice, so that copies begin as warm "
        "as its next run would; repeatable",
    )
    parser.add_argument(
        "--self", action="store_true", dest="own", help="the program checkpoints itself, although it does not look so"
    )
    parser.add_argument(
        "--scrub",
        metavar="PATTERN",
        action="append",
        default=[],
        help="wipe variables of this name from the snapshot too, such as '*_PIN'; repeatable",
    )
    parser.add_argument("--replace", action="store_true", help="replace a snapshot that is there already")
    parser.add_argument(
        "--memory", choices=("auto", "map", "copy"), help="have the memory of copies read at their start, or mapped"
    )
    store = parser.add_argument(
        "--store",
        metavar="STORE",
        default=os.environ.get("LIBCRIU_PY_STORE"),
        help="share large blocks of mapped memory with other snapshots of this directory (default: $LIBCRIU_PY_STORE)",
    )
    store.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    parser.add_argument(
        "--exit",
        choices=("normal", "fast"),
        default="normal",
        help="fast: copies end without the teardown of the interpreter (see libcriu_py.exit); default: normal, "
        "or what the program itself asks checkpoint() for",
    )
    script = parser.add_argument("--script", metavar="FILE", help="write an executable file that starts the program")
    script.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]
    parser.add_argument("--mode", choices=MODES, help=MODE_HELP)
    python = parser.add_argument(
        "--python", metavar="PATH", default=sys.executable, help="the interpreter (default: the one of this command)"
    )
    python.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]
    parser.add_argument("-m", metavar="MODULE", dest="module", help="a module, as for python -m")
    target = parser.add_argument("target", metavar="SCRIPT | COMMAND", nargs="?", help="a file, directory or command")
    target.complete = {"bash": "_shtab_compgen_files", "zsh": "_files"}  # type: ignore[attr-defined]
    # Never filled by argparse, which would take the program's options for ours; here for help and completion.
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """
    Separate what is for this command from the program's arguments.

    Args:
        argv: The arguments of the subcommand.

    Returns:
        Everything up to the module of -m or the script, and the rest.
    """
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "-":
        word = argv[place]
        if word.startswith("-m"):
            place += 1 if word == "-m" else 0
            break
        if word == "--":
            place += 1
            break
        place += 2 if word in WITH_VALUE else 1
    return argv[: place + 1], argv[place + 1 :]


def with_values(own: list[str]) -> list[str]:
    """
    Tie the values of long options to them: argparse takes a single word such as "--version" for an option of ours.

    Args:
        own: What `split` says is for this command.

    Returns:
        The same, with "--learn --version" as "--learn=--version".
    """
    words = iter(own)
    tied = []
    for word in words:
        value = next(words, None) if word in WITH_VALUE and word.startswith("--") else None
        tied.append(word if value is None else f"{word}={value}")
    return tied


def main(argv: list[str]) -> int:
    """
    Run the subcommand.

    Args:
        argv: Its arguments.

    Returns:
        The exit status.
    """
    own, arguments = split(argv)
    options = parse(build_parser(), with_values(own))
    if isinstance(options, int):
        return options
    preload = [name.strip() for names in options.preload for name in names.split(",") if name.strip()]
    if options.module is None and options.target is None:
        if not preload:
            sys.stderr.write(
                "libcriu-py snapshot: name a program (-m MODULE, SCRIPT or COMMAND), or --preload modules\n"
            )
            return USAGE
        if options.learn or options.warm_up or options.own:
            sys.stderr.write("libcriu-py snapshot: --learn, --warm-up and --self need a program\n")
            return USAGE
    try:
        plan = Plan(
            dir=os.path.abspath(options.output),
            program=find_program(options.module, options.target, options.python),
            argv=arguments,
            preload=preload,
            learn=[shlex.split(args) for args in options.learn],
            warm_up=[shlex.split(args) for args in options.warm_up],
            own=options.own or None,
            exit=options.exit,
        )
        return take(plan, options)
    except (CriuError, OSError) as error:
        report(error)
        return 1


def find_program(module: str | None, target: str | None, python: str) -> Program | None:
    """
    Work out what is to run.

    Args:
        module: The module of -m.
        target: Path of a script, directory or zip file, or the name of a command.
        python: The interpreter that is to run it.

    Returns:
        The program, scripts with their absolute path so that it can be run from anywhere; None if nothing is given.

    Raises:
        SnapshotError: There is no such file or command, or it is nothing that Python can run.
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
        message = f"{target}: there is no such file"
        raise SnapshotError(message)
    return find_command(target, python=python)


def take(plan: Plan, options: argparse.Namespace) -> int:
    """
    Run the program until it has been saved, and say what came out.

    Args:
        plan: What to make ready.
        options: The command line.

    Returns:
        The exit status.

    Raises:
        SnapshotError: There is something else at the place of the snapshot.
        CriuError: The program cannot be started where it could be saved.
    """
    from libcriu_py.dump.spawn import spawn_for_snapshot

    start = time.monotonic()
    _refuse_what_is_there(plan.dir, replace=options.replace)
    if options.store:
        _refuse_place(os.path.abspath(options.store), f"{options.store} cannot be used as store")
    if options.script is not None:
        from libcriu_py.copies.launch_script import refuse_place

        refuse_place(options.script, plan.dir)
    before = _identity(plan.dir)
    status = spawn_for_snapshot(command_line(options.python, plan), env=_environment(options), mode=options.mode)
    # Where the program has said why there is none, the one that is there was made by another command meanwhile.
    if status == TOLD or _identity(plan.dir) in {None, before}:
        if status != TOLD:
            sys.stderr.write(f"libcriu-py: no snapshot was made: {_why_not(status, plan)}\n")
        return 1
    if options.store and Snapshot.open(plan.dir).memory_key is not None:
        from libcriu_py.cli.optimize import share

        share(plan.dir, options.store)
    if options.script is not None:
        from libcriu_py.copies.launch_script import write_launch_script

        write_launch_script(options.script, plan.dir, mode=options.mode)
    summarize(Snapshot.open(plan.dir), options.output, time.monotonic() - start)
    if options.script is not None:
        print(f"or start: {_typed(options.script, starts=True)}")
    return 0


def _refuse_what_is_there(directory: str, *, replace: bool) -> None:
    """Refuse early what the checkpoint would refuse, before the program is started."""
    if not os.path.lexists(directory):
        _refuse_place(os.path.dirname(directory), f"{directory} cannot be made")
        return
    if not os.path.isdir(directory):
        message = f"{directory} exists and is not a directory; remove it, or give another one to -o"
        raise SnapshotError(message)
    if os.access(directory, os.R_OK | os.X_OK) and not os.listdir(directory):
        _refuse_place(directory, f"{directory} cannot be used")
        return
    if not os.path.exists(os.path.join(directory, MANIFEST)):
        message = f"{directory} exists and is no snapshot; remove it, or give another directory to -o"
        raise SnapshotError(message)
    if not replace:
        message = f"{directory} is a snapshot already; give --replace to make it anew"
        raise SnapshotError(message)


def _refuse_place(directory: str, consequence: str) -> None:
    """Refuse a place in which nothing can be made; what is missing of its path is not there yet."""
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if not os.path.isdir(directory):
        message = f"{consequence}: {directory} is not a directory"
    elif not os.access(directory, os.W_OK | os.X_OK):
        message = f"{consequence}: you may not write to {directory}; choose another place"
    else:
        return
    raise SnapshotError(message)


def _identity(directory: str) -> tuple[int, int] | None:
    """Return what tells one manifest from another; None where there is none."""
    try:
        status = os.stat(os.path.join(directory, MANIFEST))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _environment(options: argparse.Namespace) -> dict[str, str]:
    """Return the program's environment: ours, and what the options say to its checkpoint."""
    env = dict(os.environ)
    if options.replace:
        env["LIBCRIU_PY_REPLACE"] = "1"
    if options.memory:
        env["LIBCRIU_PY_MEMORY"] = options.memory
    if options.scrub:
        env["LIBCRIU_PY_SCRUB"] = ",".join(filter(None, [env.get("LIBCRIU_PY_SCRUB"), *options.scrub]))
    return env


def _why_not(status: int, plan: Plan) -> str:
    """Say what probably kept the program from being saved, and what helps."""
    if status < 0:
        return f"the program died of signal {-status}"
    if status > 0:
        return f"the program ended with status {status}; see its messages above"
    if plan.own:
        return (
            "the program ended with status 0 and did not checkpoint itself; "
            "leave out --self, or give it the arguments that lead to its checkpoint()"
        )
    if plan.warm_up:
        return "the program ended its process with status 0 in the warm-up (os._exit?); leave out --warm-up"
    return (
        "the program ended with status 0 before its checkpoint(); give it the arguments that lead there, "
        "or take that call out of it to have it made ready from outside"
    )


def summarize(snapshot: Snapshot, directory: str, seconds: float) -> None:
    """
    Print what was made.

    Args:
        snapshot: The snapshot.
        directory: Its path as the user gave it.
        seconds: How long it took.
    """
    total = sum(entry["size"] for entry in snapshot.manifest["files"].values())
    modules = snapshot.details.get("modules")
    print(f"snapshot: {snapshot.path} ({size(total)}, made in {seconds:.1f} s)")
    if modules is not None:
        print(f"preloaded: {modules} modules (libcriu-py inspect {_typed(directory)} lists them)")
    what = (
        "[SCRIPT | -m MODULE] [ARGUMENTS ...]"
        if modules is not None and snapshot.program is None
        else "[ARGUMENTS ...]"
    )
    print(f"run it: libcriu-py run {_typed(directory)} {what}")
    if _spins(snapshot):
        print(
            "tip: threads of OpenMP spin for milliseconds before they sleep, which copies that start have to wait for; "
            f"made with GOMP_SPINCOUNT={SPIN_COUNT} in the environment, they start sooner (docs/warm-up.md)"
        )


def _typed(path: str, *, starts: bool = False) -> str:
    """Return a path as it can be typed, where options are expected too, or where a command is looked for on PATH."""
    here = path.startswith("-") or (starts and os.sep not in path)
    return shlex.quote(os.path.join(os.curdir, path) if here else path)


def _spins(snapshot: Snapshot) -> bool:
    """Return whether the program has an OpenMP library whose threads wait as long as they do by default."""
    if any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        return False
    return any(os.path.basename(entry["path"]).startswith("libgomp") for entry in snapshot.manifest["mapped"])
