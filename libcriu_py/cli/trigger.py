"""``libcriu-py trigger``: make a running program take its checkpoint."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build

if TYPE_CHECKING:
    import argparse

HELP = "make a running program take its checkpoint"

EPILOG = """\
A program that has called libcriu_py.allow_checkpoint() says itself where its snapshot goes, and whether it goes on.

Any other program takes its checkpoint, into PID.snap unless -o names a directory, and goes on. It must run Python 3.14
or newer, of the same minor version as this command; have libcriu_py in its environment; be one that this user may
trace; and its main thread must run bytecode within ten seconds. Whatever is missing is named.

examples:
  libcriu-py trigger 4711            into the directory that the program chose
  libcriu-py trigger 4711 -o snap    into another one

exit status:
  0  the snapshot was made
  1  it was not; the program goes on, and stderr says why
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "trigger",
        usage="PID [-o DIR]",
        description="Make a running program of this user take its checkpoint.",
        epilog=EPILOG,
    )
    parser.add_argument("pid", metavar="PID", type=pid, help="the process")
    parser.add_argument("-o", "--output", metavar="DIR", help="the snapshot to make")
    return parser


def pid(text: str) -> int:
    """Return the number that a text is, if a process may have it."""
    number = int(text)
    if not 0 < number < 1 << 22:  # PID_MAX_LIMIT (proc_sys_kernel(5))
        message = f"no process has the number {text}"
        raise ValueError(message)
    return number


def execute(options: argparse.Namespace) -> int:
    """Ask the program for its checkpoint, and print the snapshot's path."""
    from libcriu_py.dump.trigger import ask, is_allowed

    output = options.output
    if not is_allowed(options.pid):
        from libcriu_py.dump.remote import permit

        permit(options.pid)
        output = output or f"{options.pid}.snap"
    made = ask(options.pid, None if output is None else os.path.abspath(output))
    sys.stdout.write(f"snapshot: {made}\n")
    return 0
