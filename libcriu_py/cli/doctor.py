"""``libcriu-py doctor``: find out which modes work here, and how to fix the others."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import add_json, build, print_json

if TYPE_CHECKING:
    import argparse

    from libcriu_py.diagnosis import Report

HELP = "find out which ways to dump and restore work here, and how to fix the others"

EPILOG = """\
examples:
  libcriu-py doctor                        what works for this user, here
  libcriu-py doctor --mode rootless && ... continue if that mode works
  libcriu-py doctor --json | jq .facts     everything that was examined
  sudo libcriu-py doctor --fix             also run the commands that root must run, after asking

The native engine comes first, which needs no right; the others are modes of criu. One works if the doctor can dump and
restore a tiny process in it. This test leaves nothing behind. The last line is the command to type next.

exit status:
  0  a mode works (with --mode: all of those given work)
  1  no mode works (with --mode: one of those given does not)
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "doctor",
        usage="[--json] [--fix [--yes]] [--mode MODE ...]",
        description="Try the native engine; look at CRIU, kernel, capabilities, namespaces, filters and mounts, and "
        "try each mode of criu.",
        epilog=EPILOG,
    )
    add_json(parser)
    parser.add_argument("--fix", action="store_true", help="run the commands that this user may run, after asking")
    parser.add_argument("-y", "--yes", action="store_true", help="with --fix: do not ask")
    parser.add_argument(
        "--mode",
        action="append",
        choices=("native", "root", "capability", "rootless"),
        help="try only this way; repeatable",
    )
    return parser


def execute(options: argparse.Namespace) -> int:
    """Examine the machine, fix what this user may fix, and print the report."""
    from libcriu_py.diagnosis import MODES, doctor
    from libcriu_py.program.progress import Progress

    wanted = options.mode or MODES
    with Progress("trying what works here"):
        report = doctor(wanted)
    if options.fix and _fix(report, yes=options.yes):
        report = doctor(wanted)
    if options.json:
        print_json(report.as_dict())
    else:
        from libcriu_py.cli import _diagnosis

        _diagnosis.show(report)
    enough = len(options.mode) if options.mode else 1
    return 0 if len(report.works) >= enough else 1


def _fix(report: Report, *, yes: bool) -> bool:
    """Run the commands that this user may run, after asking; return whether any was run."""
    from libcriu_py.diagnosis import can_run

    obstacles = [diagnosis.obstacle for diagnosis in report.modes if diagnosis.obstacle is not None]
    commands = {item.command: item for item in (*obstacles, *report.notes) if can_run(item)}
    done = False
    for command, obstacle in commands.items():
        sys.stderr.write(f"{obstacle.text}.\n  {command}\n")
        if yes or confirm("Run this?"):
            said_yes = f"{command} --yes" if " setup " in f"{command} " else command
            # The command is the package's own, with quoted words. Its output must not mix with the JSON.
            subprocess.run(said_yes, shell=True, check=False, stdout=sys.stderr)  # noqa: S602
            done = True
    return done


def confirm(question: str) -> bool:
    """Ask a question, and return whether the answer was yes; no answer counts as no."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
