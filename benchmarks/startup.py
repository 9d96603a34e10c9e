"""
Compare a program's conventional start with ``libcriu-py run``.

The same images are also restored with the ``criu restore`` command and with
pycriu, so that what the hand-over costs can be told from what CRIU costs. The
variants run in turns; a round to warm the caches is not counted.

Run it as ``python benchmarks/startup.py`` in an environment where the package
is installed with its extra ``bench``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks import machine, pictures, report
from benchmarks.scenarios import SCENARIOS
from benchmarks.session import Session
from benchmarks.snapshots import environment
from libcriu_py.binary import find_criu
from libcriu_py.errors import BinaryNotFound

EDITABLE = (
    "[yellow]note:[/yellow] an editable installation makes every start of this Python slower, conventional ones too;"
    " install with: pip install --config-settings editable_mode=compat -e . (or without -e)"
)


class Options(argparse.Namespace):
    """
    The command line.
    """

    runs: int
    only: list[str]
    json: Path | None
    plot: Path | None
    pycriu: Path | None
    keep: Path | None


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    """
    parser = argparse.ArgumentParser(
        prog="startup.py",
        description="Compare a conventional start with a restored one.",
    )
    parser.add_argument("--runs", "--rounds", type=int, default=15, metavar="N", help="rounds (default: 15)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=SCENARIOS,
        help="measure this scenario; may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG, and an SVG beside it")
    parser.add_argument(
        "--pycriu",
        type=Path,
        metavar="DIR",
        help="built lib directory of CRIU's source, to have pycriu from",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the snapshots in DIR")
    options = parser.parse_args(argv, namespace=Options())
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def criu_binary(session: Session) -> str | None:
    """
    Find criu for the description of the machine.

    Args:
        session: Told when there is none.

    """
    try:
        return find_criu()
    except BinaryNotFound as error:
        session.skip(str(error))
        return None


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the tables and write the files that were asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.

    """
    options = parse(argv)
    console = Console()
    with ExitStack() as stack:
        directory = options.keep
        if directory is None:
            made = tempfile.TemporaryDirectory(prefix="libcriu_py-bench-")
            directory = Path(stack.enter_context(made))
        directory.mkdir(parents=True, exist_ok=True)
        session = Session(console, directory.resolve(), options.runs, options.pycriu)
        described = machine.describe(criu_binary(session), environment())
        if described["editable_finder"]:
            console.print(EDITABLE, highlight=False)
        measured = [session.scenario(name) for name in options.only or SCENARIOS]
        outcomes = [outcome for outcome in measured if outcome is not None]
        launcher = session.launcher()
    if not outcomes:
        return 1
    console.print(report.table(outcomes))
    console.print(report.launcher_table(launcher))
    if options.json is not None:
        described["load_at_end"] = list(os.getloadavg())
        text = report.as_json(outcomes, launcher, described, session.skipped)
        options.json.write_text(text, encoding="utf-8")
    if options.plot is not None:
        pictures.plot(outcomes, options.plot, pictures.subtitle(described, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
