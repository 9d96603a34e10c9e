"""``libcriu-py preflight``: list what would keep a program from being saved."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import USAGE, add_json, add_program, add_setting, build, carry_out, count, print_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from libcriu_py.findings.finding import Finding

HELP = "list what would keep a program from being saved"

EPILOG = """\
The program runs as with `libcriu-py snapshot`, and ends at its checkpoint. The report names the problems; with -v, it
lists every open descriptor, lock, child and deleted mapping, and what copies do not renew, with a verdict:
  fine         it is dumped and restored
  handled      this package, or an option of the dump, takes care of it
  needs hook   the program must close or release it before the dump
  impossible   criu cannot dump it
and which engine would dump the program: what only criu cannot dump is no problem for the native one.

examples:
  libcriu-py preflight service.py --port 80
  libcriu-py preflight --json service.py | jq .problems
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
    parser.add_argument("-v", "--verbose", action="store_true", help="also list what is no problem")
    add_json(parser)
    parser.add_argument("--trace", action="store_true", help="also show where each descriptor was opened")
    add_setting(parser, "mode")
    add_program(parser)
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand, and return its exit status."""
    from libcriu_py.cli.snapshot import split

    own, arguments = split(argv)
    return carry_out(build_parser(), own, lambda options: _preflight(options, arguments))


def _preflight(options: argparse.Namespace, arguments: list[str]) -> int:
    """Run the program up to its checkpoint, which prints the report."""
    from libcriu_py.cli.snapshot import find_program
    from libcriu_py.dump.prepare import Plan, command_line
    from libcriu_py.dump.spawn import spawn_for_snapshot
    from libcriu_py.findings.finding import Finding
    from libcriu_py.program.main import Program
    from libcriu_py.settings import variable

    if options.module is None and options.target is None:
        sys.stderr.write("libcriu-py preflight: name a program (-m MODULE, SCRIPT or COMMAND)\n")
        return USAGE
    python = options.python or sys.executable
    engine = "criu" if variable("LIBCRIU_PY_ENGINE") == "criu" else "auto"
    with tempfile.TemporaryDirectory(prefix="libcriu_py-") as directory:
        report = os.path.join(directory, "report")
        variables = {**os.environ, "LIBCRIU_PY_PREFLIGHT": report, "LIBCRIU_PY_ENGINE": engine}
        if options.trace:
            variables["LIBCRIU_PY_TRACE_FDS"] = "1"
        program = find_program(options.module, options.target, python) or Program("script", options.target)
        plan = Plan(dir=os.path.join(directory, "snap"), program=program, argv=arguments)
        with _away_from_stdout() if options.json else nullcontext():
            status = spawn_for_snapshot(command_line(python, plan), env=variables, mode=options.mode)
        if status == -signal.SIGINT:
            raise KeyboardInterrupt
        if not os.path.exists(report):
            return 1
        with open(report, encoding="ascii") as file:
            found = [Finding.from_dict(item) for item in json.load(file)]
    _print(found, options)
    return 0 if status == 0 else 1


@contextmanager
def _away_from_stdout() -> Iterator[None]:
    """Send to stderr what the program prints, since stdout is for the report."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _print(found: list[Finding], options: argparse.Namespace) -> None:
    """Print the findings that are asked for."""
    from libcriu_py.findings import table

    problems = [finding for finding in found if finding.is_problem]
    engine = found[-1]
    if options.json:
        listed = {"findings": found, "problems": problems}
        print_json({"engine": engine.what, **{name: [one.as_dict() for one in all_] for name, all_ in listed.items()}})
        return
    shown = found if options.verbose else [engine, *problems]
    sys.stdout.write(table(shown))
    if not options.verbose:
        rest = [finding for finding in found if finding not in shown]
        advised = sum(bool(finding.advice) for finding in rest)
        others = f"{count(len(rest), 'other finding')}, {advised} of them with advice"
        print(f"{count(len(problems), 'problem')}; {others} (-v lists them)")
