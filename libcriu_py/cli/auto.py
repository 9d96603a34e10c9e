"""``libcriu-py auto``: what is known of automatic snapshots; the launcher does the starts themselves."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.cli._arguments import PROG, USAGE, add_json, add_rest, build, carry_out, complete, print_json, size

if TYPE_CHECKING:
    import argparse

    from libcriu_py.auto.entry import Entry

HELP = "start a program from a snapshot that is made, and kept fit, by itself"

EPILOG = """\
The first start is conventional, and notes what the program imports. When it has ended, a job in the background makes
the snapshot, tries a copy of it, and the next start is one of it. A start checks that nothing has changed: the program,
its modules, installed packages, variables and files that were read, interpreter, kernel, processor. Where one has, the
start is conventional at once, and the snapshot is made anew in the background. Nothing is said on the way: output
and exit status are the program's. LIBCRIU_PY_AUTO=0 switches all of this off.

examples:
  libcriu-py auto black --check src            a command on PATH
  libcriu-py auto report.py --year 2024        a script
  libcriu-py auto -m http.server               a module
  libcriu-py auto --show black                 how often, and why not
  libcriu-py auto --build black --version      make the snapshot now, with what this run imports

exit status:
  the program's own; 127 if it was not found
  of the options: 0 done, 1 it could not be, 2 wrong command line
"""

ACTIONS = {
    "--show": "tell of one program: its snapshot, starts from it, and why others were conventional",
    "--list": "list all programs",
    "--rm": "forget a program and remove its snapshot; without a program, all of them",
    "--gc": "remove what is left of programs that are gone, or were not started for 30 days",
    "--verify": "read all snapshots and try a copy of each; set aside what is damaged",
    "--build": "make the snapshot of a program now; with arguments, run it with these first to learn what it imports",
}
UNUSED = 30 * 86400


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything up to the program; what follows is the program's."""
    parser = build(
        "auto",
        usage="[--] [-m MODULE | SCRIPT | COMMAND] [ARGUMENTS ...] | --show [--json] PROGRAM | --list [--json] | "
        "--build PROGRAM | --rm [PROGRAM] | --gc|--verify",
        description="Start a Python program from a snapshot in your cache, which is made and kept fit by itself.",
        epilog=EPILOG,
    )
    actions = parser.add_mutually_exclusive_group()
    for option, text in ACTIONS.items():
        actions.add_argument(option, dest="action", action="store_const", const=option, help=text)
    add_json(parser)
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module as a script, as python -m does")
    complete(parser.add_argument("target", metavar="SCRIPT | COMMAND", nargs="?", help="a file or command"), "file")
    add_rest(parser)
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand, and return its exit status."""
    own = argv[:1] if argv[:1] and argv[0] in ACTIONS else []
    if own and own[0] in {"--show", "--list"} and argv[1:2] == ["--json"]:
        own = argv[:2]
    words = argv[len(own) :]
    if words[:1] == ["--"]:
        words = words[1:]
    if not own and words and (not words[0].startswith("-") or words[0].startswith("-m")):
        _start(words)
    return carry_out(build_parser(), own or argv, lambda options: _act(options, words))


def _start(words: list[str]) -> None:
    """Become the launcher, where this was not started by it."""
    from libcriu_py.snapshot import launcher

    launcher.become(["--auto-start", sys.executable, *words])


def _act(options: argparse.Namespace, words: list[str]) -> int:
    action: str | None = options.action
    if action is None or (not words and action in {"--show", "--build"}):
        sys.stderr.write(f"{PROG} auto: name a program: -m MODULE, SCRIPT or COMMAND (see {PROG} auto --help)\n")
        return USAGE
    from libcriu_py.auto import entry

    if action in {"--list", "--gc", "--verify"} or not words:
        return _act_on(entry.all_entries(), action, as_json=options.json)
    found = entry.find(words, sys.executable)
    if found is None:
        sys.stderr.write(f"{PROG} auto: {words[0]} is no Python program that can be found, or HOME names no cache\n")
        return 1
    if action == "--build":
        return _build(found, words)
    return _show(found, as_json=options.json) if action == "--show" else _remove(found)


def _act_on(entries: list[Entry], action: str, *, as_json: bool) -> int:
    """Do something with all programs."""
    if as_json and action == "--list":
        print_json([_facts(entry) for entry in entries])
        return 0
    acts = {"--list": _list, "--gc": _gc, "--verify": _verify, "--rm": _remove}
    return max(map(acts[action], entries), default=0)


def _name(entry: Entry) -> str:
    return " ".join(entry.program.arguments())


def _facts(entry: Entry) -> dict[str, Any]:
    """Return all that is known of a program, for JSON."""
    facts = {**entry.program._asdict(), "python": entry.python, "place": entry.path, "obstacle": entry.obstacle()}
    if not os.access(entry.path, os.R_OK | os.X_OK):
        return facts
    state = entry.state()
    return {
        **facts,
        "snapshot": entry.snapshot if os.path.isdir(entry.snapshot) else None,
        "made": max(state.get("times") or [0]),
        "hits": entry.hits(),
        "misses": [{"time": when, "why": why} for when, why in entry.misses()],
        "refused": entry.refused(),
        "reason": state.get("reason"),
        "modules": len(state.get("modules", ())),
        "without": state.get("without", {}),
    }


def _list(entry: Entry) -> int:
    reason = entry.refused()
    state = f"refused: {reason}" if reason else "ready" if os.path.isdir(entry.snapshot) else "no snapshot yet"
    print(f"{_name(entry)}  {entry.hits()} from the snapshot, {len(entry.misses())} conventional, {state}")
    return 0


def _ago(when: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))


def _show(entry: Entry, *, as_json: bool) -> int:
    if as_json:
        print_json(_facts(entry))
        return 0
    print(f"program: {_name(entry)}\ninterpreter: {entry.python}\nplace: {entry.path}")
    obstacle = entry.obstacle()
    if obstacle is not None:
        print(obstacle)
    if not os.access(entry.path, os.R_OK | os.X_OK):
        return 0
    state = entry.state()
    if os.path.isdir(entry.snapshot):
        _show_snapshot(entry, state)
    refused = entry.refused()
    if refused:
        print(f"no snapshot can be made, until something changes: {refused}")
    elif state.get("reason"):
        print(f"last job: {state['reason']}")
    for when, why in entry.misses()[-5:]:
        print(f"conventional: {_ago(when)}: {why}")
    for name, why in list(state.get("without", {}).items())[:20]:
        print(f"left out: {name}: {why}")
    return 0


def _show_snapshot(entry: Entry, state: dict[str, Any]) -> None:
    from libcriu_py.errors import SnapshotError
    from libcriu_py.snapshot.manifest import Snapshot

    try:
        snapshot = Snapshot.open(entry.snapshot)
    except SnapshotError as error:
        print(f"snapshot: {error}")
        return
    total = sum(file.size for file in snapshot.launch.files.values())
    made = _ago(max(state.get("times") or [0]))
    print(f"snapshot: made {made}, engine {snapshot.engine}, {size(total)}, {len(state.get('modules', ()))} modules")
    print(f"starts from it: {entry.hits()}")


def _remove(entry: Entry) -> int:
    import shutil

    if os.path.isdir(entry.path):
        with entry.locked(wait=True):
            shutil.rmtree(entry.path)
    return 0


def _gc(entry: Entry) -> int:
    gone = entry.program.kind == "script" and not os.path.exists(entry.program.value)
    if gone or not os.path.exists(entry.python) or time.time() - entry.used() > UNUSED:
        print(f"removed: {_name(entry)}")
        return _remove(entry)
    with entry.locked() as ours:
        if ours:
            entry.tidy()
    return 0


def _verify(entry: Entry) -> int:
    from libcriu_py.auto import job

    if not os.path.isdir(entry.snapshot):
        return 0
    with entry.locked(wait=True):
        wrong = job.verify(entry)
    if wrong is not None:
        sys.stderr.write(f"{PROG} auto: the snapshot of {_name(entry)} was set aside: {wrong}\n")
    return 0 if wrong is None else 1


def _build(entry: Entry, words: list[str]) -> int:
    import subprocess

    from libcriu_py.auto import job
    from libcriu_py.snapshot import launcher

    obstacle = entry.obstacle()
    if obstacle is not None:
        sys.stderr.write(f"{PROG} auto: no snapshot was made: {obstacle}\n")
        return 1
    umask = os.umask(0o077)  # also of the directories above, as the launcher makes them
    os.makedirs(entry.path, exist_ok=True)
    os.umask(umask)
    rest = words[2:] if words[0] == "-m" else words[1:]
    if rest:
        command = [launcher.path(), "--auto-learn", sys.executable, *words]
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            sys.stderr.write(f"{PROG} auto: the run ended with status {status}; what it imported is used\n")
    made = job.build(entry)
    reason = entry.refused() or entry.state().get("reason")
    if not made:
        sys.stderr.write(f"{PROG} auto: no snapshot was made: {reason}\n")
    return 0 if made else 1
