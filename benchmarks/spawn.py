"""
Count how many copies of a ready program can be spawned a second.

``libcriu_py.copies.restore`` is compared with a conventional start by ``subprocess``
and with multiprocessing's forkserver that has the modules imported: one copy
after the other, and several at once. Each copy prints its line and ends.

Run it as ``python benchmarks/spawn.py`` in an environment where the package is
installed with its extra ``bench``.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame
from benchmarks.common import RunError, Summary, summarize
from benchmarks.scenarios import LABELS
from benchmarks.snapshots import Unavailable
from benchmarks.spawners import Spawner, spawners

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.budget import Budget


class Rate(NamedTuple):
    """Copies a second: one after the other, and several at once."""

    sequential: Summary | None
    together: Summary | None


class Options(frame.Selection):
    """The command line."""

    count: int
    together: int


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("spawn.py", "Count the copies that can be spawned a second.", runs=5)
    parser.add_count("--count", default=16, text="copies in a batch")
    parser.add_count("--together", default=8, text="copies at once")
    parser.add_only("empty and pandas")
    options = parser.read(argv, Options())
    if options.count % options.together:
        parser.error("--count must be a multiple of --together")
    return options


def rates(bench: frame.Frame[Options], name: str, ways: Sequence[Spawner], budget: Budget) -> dict[str, Rate]:
    """
    Measure batches of all ways in turns.

    Args:
        bench: Measures.
        name: The program.
        ways: The ways to spawn.
        budget: Of the rounds.
    """
    count, together = bench.options.count, bench.options.together

    def batch(way: Spawner, together: int) -> Callable[[], float]:
        return lambda: count / way.batch(count, together)

    kinds = [(way, number) for way in ways for number in (1, together)]
    found = bench.turns(name, {(way.name, number): batch(way, number) for way, number in kinds}, budget=budget)

    def summary(way: Spawner, number: int) -> Summary | None:
        rates = found.get((way.name, number))
        return summarize(rates) if rates else None

    return {way.name: Rate(summary(way, 1), summary(way, together)) for way in ways}


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
    bench = frame.Frame(options)
    everything: dict[str, dict[str, Rate]] = {}
    for name, scenario, budget in bench.scenarios(options.only or ["empty", "pandas"]):
        with ExitStack() as stack:
            directory = stack.enter_context(bench.directory()) / name
            try:
                ways = spawners(scenario, directory, stack)
            except (RunError, Unavailable) as error:
                bench.skip(f"{name}: {error}")
                continue
            everything[name] = rates(bench, name, ways, budget)
        bench.console.print(show(name, everything[name], options.together))
    bench.write(count=options.count, together=options.together, copies_per_second=as_json(everything))
    return 0 if everything else 1


def as_json(everything: dict[str, dict[str, Rate]]) -> dict[str, object]:
    """
    Turn the rates into what JSON can hold.

    Args:
        everything: The rates of each scenario and way.
    """
    return {
        name: {
            way: {
                "one_by_one": rate.sequential and rate.sequential._asdict(),
                "at_once": rate.together and rate.together._asdict(),
            }
            for way, rate in measured.items()
        }
        for name, measured in everything.items()
    }


if __name__ == "__main__":
    sys.exit(main())
