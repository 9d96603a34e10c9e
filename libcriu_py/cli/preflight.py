"""``libcriu-py preflight``: list what would keep a program from being saved."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import USAGE, add_program, add_setting, build, parse, report
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "list what would keep a program from being saved"

EPILOG = """\
The program runs as with `libcriu-py snapshot`, and ends at its checkpoint. Every open descriptor, lock, child and
deleted mapping is listed with a verdict:
  fine         it is dumped and restored
  handled      this package, or an option of the dump, takes care of it
  needs hook   the program must close or release it before the dump
  impossible   criu cannot dump it

examples:
  libcriu-py preflight service.py --port 80
  libcriu-py preflight --trace -m mypackage         also show where each descriptor was opened

exit status:
  0  the program can be saved
  1  it cannot, or could not be started
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything up to the program; what follows is the program's."""
    parser = build(
        "preflight",
        usage="[OPTIONS] [-m MODULE | SCRIPT | COMMAND] [ARGUMENTS ...]",
        description="List what a dump of a program would have to save, and what it could not save.",
        epilog=EPILOG,
    )
    parser.add_argument("--trace", action="store_true", help="also show where each descriptor was opened")
    add_setting(parser, "mode")
    add_program(parser)
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand, and return its exit status."""
    from libcriu_py.cli.snapshot import find_program, split
    from libcriu_py.dump.prepare import Plan, command_line
    from libcriu_py.dump.spawn import spawn_for_snapshot

    own, arguments = split(argv)
    options = parse(build_parser(), own)
    if isinstance(options, int):
        return options
    if options.module is None and options.target is None:
        sys.stderr.write("libcriu-py preflight: name a program (-m MODULE, SCRIPT or COMMAND)\n")
        return USAGE
    python = options.python or sys.executable
    variables = {**os.environ, "LIBCRIU_PY_PREFLIGHT": "report"}
    if options.trace:
        variables["LIBCRIU_PY_TRACE_FDS"] = "1"
    try:
        with tempfile.TemporaryDirectory(prefix="libcriu_py-") as directory:
            plan = Plan(
                dir=os.path.join(directory, "snap"),
                program=find_program(options.module, options.target, python),
                argv=arguments,
            )
            status = spawn_for_snapshot(command_line(python, plan), env=variables, mode=options.mode)
    except (CriuError, OSError) as error:
        report(error)
        return 1
    return 0 if status == 0 else 1
