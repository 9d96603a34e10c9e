"""``libcriu-py preflight``: say what in a program would keep it from being saved."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import MODE_HELP, MODES, USAGE, build, parse, report
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "say what in a program would keep it from being saved"

EPILOG = """\
The program is started as for `libcriu-py snapshot`, up to the point of its checkpoint, and ends there. Each open
descriptor, lock, child and deleted mapping is listed with a verdict:
  fine         it is dumped and restored
  handled      this package, or an option of the dump, takes care of it
  needs hook   the program must let go of it before the dump
  impossible   criu cannot dump it

examples:
  libcriu-py preflight service.py --port 80
  libcriu-py preflight --trace -m mypackage         where each descriptor was opened, too

exit status:
  0  nothing is in the way
  1  something is
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser of everything up to the program; what follows is the program's.
    """
    import argparse

    parser = build(
        "preflight",
        usage="[OPTIONS] [-m MODULE | SCRIPT | COMMAND] [ARGUMENTS ...]",
        description="List what a dump of a program has to save, and what keeps it from that.",
        epilog=EPILOG,
    )
    parser.add_argument("--trace", action="store_true", help="also say where each descriptor was opened")
    parser.add_argument("--mode", choices=MODES, help=MODE_HELP)
    parser.add_argument(
        "--python", metavar="PATH", default=sys.executable, help="the interpreter (default: the one of this command)"
    )
    parser.add_argument("-m", metavar="MODULE", dest="module", help="a module, as for python -m")
    parser.add_argument("target", metavar="SCRIPT | COMMAND", nargs="?", help="a file, directory or command")
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def main(argv: list[str]) -> int:
    """
    Run the subcommand.

    Args:
        argv: Its arguments.

    Returns:
        The exit status.
    """
    from libcriu_py.cli.snapshot import find_program, split
    from libcriu_py.dump.prepare import Plan, command_line
    from libcriu_py.dump.spawn import spawn_for_snapshot
    from libcriu_py.findings import REPORT_VARIABLE, tracing

    own, arguments = split(argv)
    options = parse(build_parser(), own)
    if isinstance(options, int):
        return options
    if options.module is None and options.target is None:
        sys.stderr.write("libcriu-py preflight: name a program: -m MODULE, SCRIPT or COMMAND\n")
        return USAGE
    variables = {**os.environ, REPORT_VARIABLE: "report"}
    if options.trace:
        variables[tracing.VARIABLE] = "1"
    try:
        with tempfile.TemporaryDirectory(prefix="libcriu_py-") as directory:
            plan = Plan(
                dir=os.path.join(directory, "snap"),
                program=find_program(options.module, options.target, options.python),
                argv=arguments,
            )
            status = spawn_for_snapshot(command_line(options.python, plan), env=variables, mode=options.mode)
    except (CriuError, OSError) as error:
        report(error)
        return 1
    return 0 if status == 0 else 1
