"""
Count how many copies of a ready program can be spawned a second.

``libcriu_py.restore`` is compared with a conventional start by ``subprocess``
and with multiprocessing's forkserver that has the modules imported: one copy
after the other, and several at once. Each copy prints its line and ends.

Run it as ``python benchmarks/spawn.py`` in an environment where the package is
installed with its extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.common import RunError, Summary, round_robin, summarize
from benchmarks.scenarios import LABELS, SCENARIOS
from benchmarks.snapshots import Unavailable, environment
from benchmarks.spawners import Spawner, spawners
from libcriu_py.binary import find_criu

if TYPE_CHECKING:
    from collections.abc import Sequence

WARM_UP = 1  # batches


class Rate(NamedTuple):
    """
    Copies a second: one after the other, and several at once.
    """

    sequential: Summary | None
    together: Summary | None


class Options(argparse.Namespace):
    """
    The command line.
    """

    runs: int
    count: int
    together: int
    only: list[str]
    json: Path | None


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    """
    parser = argparse.ArgumentParser(prog="spawn.py", description="Count the copies that can be spawned a second.")
    for flag, default, text in (
        ("--runs", 5, "batches of each kind"),
        ("--count", 16, "copies in a batch"),
        ("--together", 8, "copies at once"),
    ):
        parser.add_argument(
            flag,
            type=int,
            default=default,
            metavar="N",
            help=f"{text} (default: %(default)s)",
        )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=SCENARIOS,
        help="measure this program; may be given more than once (default: empty and pandas)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON")
    options = parser.parse_args(argv, namespace=Options())
    if min(options.runs, options.count, options.together) < 1:
        parser.error("--runs, --count and --together must be at least 1")
    if options.count % options.together:
        parser.error("--count must be a multiple of --together")
    return options


def rates(ways: Sequence[Spawner], options: Options, console: Console) -> dict[str, Rate]:
    """
    Measure batches of all ways in turns.

    Args:
        ways: The ways to spawn.
        options: The command line.
        console: Told what failed.

    """
    kinds = [(way, together) for way in ways for together in (1, options.together)]
    found: dict[tuple[str, int], list[float]] = {}
    failed: set[tuple[str, int]] = set()
    for number, (way, together) in round_robin(kinds, WARM_UP + options.runs):
        key = way.name, together
        if key in failed:
            continue
        try:
            seconds = way.batch(options.count, together)
        except RunError as error:
            failed.add(key)
            console.print(f"[yellow]skipped:[/yellow] {together} at once: {error}")
            continue
        if number >= WARM_UP:
            found.setdefault(key, []).append(options.count / seconds)

    def summary(name: str, together: int) -> Summary | None:
        key = name, together
        return None if key in failed else summarize(found[key])

    return {way.name: Rate(summary(way.name, 1), summary(way.name, options.together)) for way in ways}


def show(name: str, measured: dict[str, Rate], together: int) -> Table:
    """
    Make the table of one scenario.

    Args:
        name: The scenario.
        measured: The rates of each way.
        together: How many at once.

    """
    label = LABELS.get(name, name)
    table = Table(title=f"Copies of {label} a second: median, quartiles")
    table.add_column("spawned by")
    table.add_column("one by one", justify="right")
    table.add_column(f"{together} at once", justify="right")
    for way, rate in measured.items():
        table.add_row(way, *(cell(summary) for summary in rate))
    return table


def cell(summary: Summary | None) -> str:
    """
    Write a rate.

    Args:
        summary: Copies a second, or None.

    """
    if summary is None:
        return "-"
    return f"{summary.median:.1f} [dim]{summary.low:.1f}..{summary.high:.1f}[/dim]"


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the tables and write JSON if asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.

    """
    options = parse(argv)
    console = Console()
    everything: dict[str, dict[str, Rate]] = {}
    for name in options.only or ("empty", "pandas"):
        scenario = SCENARIOS[name]()
        missing = scenario.missing()
        if missing:
            console.print(f"[yellow]skipped:[/yellow] {name} needs {missing}")
            continue
        with ExitStack() as stack:
            made = tempfile.TemporaryDirectory(prefix="libcriu_py-bench-")
            directory = Path(stack.enter_context(made)) / name
            try:
                ways = spawners(scenario, directory, stack)
            except (RunError, Unavailable) as error:
                console.print(f"[yellow]skipped:[/yellow] {name}: {error}")
                continue
            everything[name] = rates(ways, options, console)
        console.print(show(name, everything[name], options.together))
    if options.json is not None:
        text = as_json(everything, options)
        options.json.write_text(text, encoding="utf-8")
    return 0 if everything else 1


def as_json(everything: dict[str, dict[str, Rate]], options: Options) -> str:
    """
    Write the rates as JSON.

    Args:
        everything: The rates of each scenario and way.
        options: The command line.

    """
    values = {
        "machine": machine.describe(find_criu(), environment()),
        "count": options.count,
        "together": options.together,
        "copies_per_second": {
            name: {
                way: {
                    "one_by_one": rate.sequential and rate.sequential._asdict(),
                    "at_once": rate.together and rate.together._asdict(),
                }
                for way, rate in measured.items()
            }
            for name, measured in everything.items()
        },
    }
    return json.dumps(values, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
