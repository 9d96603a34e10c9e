"""
Compare a program's conventional start with ``libcriu-py run``.

The same images are also restored with the ``criu restore`` command and with
pycriu, so that what the hand-over costs can be told from what CRIU costs. The
variants run in turns; a round to warm the caches is not counted.

Run it as ``python benchmarks/startup.py`` in an environment where the package
is installed with its extra ``bench``.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import frame, pictures, report
from benchmarks.scenarios import SCENARIOS
from benchmarks.session import Session

EDITABLE = (
    "[yellow]note:[/yellow] an editable installation makes every start of this Python slower, conventional ones too;"
    " install with: pip install --config-settings editable_mode=compat -e . (or without -e)"
)


class Options(frame.Selection):
    """The command line."""

    plot: Path | None
    pycriu: Path | None
    keep: Path | None


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("startup.py", "Compare a conventional start with a restored one.", runs=15)
    parser.add_only("all")
    parser.add_plot()
    parser.add_argument(
        "--pycriu",
        type=Path,
        metavar="DIR",
        default=os.environ.get("PYCRIU") or None,
        help="built lib directory of CRIU's source, to have pycriu from (default: $PYCRIU)",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the snapshots in DIR")
    return parser.read(argv, Options())


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the tables and write the files that were asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.
    """
    options = parse(argv)
    bench = frame.Frame(options)
    if bench.machine["editable_finder"]:
        bench.console.print(EDITABLE, highlight=False)
    with ExitStack() as stack:
        directory = options.keep or stack.enter_context(bench.directory())
        directory.mkdir(parents=True, exist_ok=True)
        session = Session(bench, directory.resolve(), options.pycriu)
        programs = bench.scenarios(options.only or list(SCENARIOS))
        outcomes = [session.scenario(scenario, budget) for _, scenario, budget in programs]
        runs = bench.runs
        launcher = session.launcher()
    if not outcomes:
        return 1
    bench.console.print(report.table(outcomes))
    bench.console.print(report.launcher_table(launcher))
    bench.write(**report.as_json(outcomes, launcher))
    if options.plot is not None:
        pictures.plot(outcomes, options.plot, pictures.subtitle(bench.machine, runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
