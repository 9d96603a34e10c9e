"""
Compare a start after a pause with one right after another, as nobody starts programs by hand.

To stop what it restores, criu sets hardware breakpoints, and the first one on a machine that had none for a second
makes the kernel wait for an RCU grace period. The launchers have criu do without.

Run it as ``python benchmarks/pause.py`` in an environment where the package is
installed with its extra ``bench``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame, peer_restore, variants
from benchmarks.common import RunError, Summary, summarize
from benchmarks.scenarios import LABELS, Scenario
from benchmarks.snapshots import take_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.budget import Budget
    from benchmarks.variants import Variant

PAUSE = 1.5
"""Seconds; for one after the last event the kernel stays ready (`unaccount_event` in kernel/events/core.c)."""
PROGRAMS = ("empty", "pandas", "torch")
MOMENTS = ("after a pause", "right after another")


class Pair(NamedTuple):
    """The milliseconds to the first output of two starts."""

    paused: float
    following: float


def parse(argv: Sequence[str] | None) -> frame.Selection:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("pause.py", "Compare a start after a pause with one right after another.", runs=10)
    parser.add_only(", ".join(PROGRAMS))
    return parser.read(argv, frame.Selection())


def pair(way: Variant) -> Callable[[], Pair]:
    """
    Return what starts a program after a pause, and once more at once.

    Args:
        way: Starts it.
    """

    def start() -> Pair:
        time.sleep(PAUSE)
        return Pair(way.start().first, way.start().first)

    return start


def compare(
    bench: frame.Frame[frame.Selection], scenario: Scenario, directory: Path, budget: Budget
) -> dict[str, dict[str, Summary]]:
    """
    Measure a scenario by the launcher and by criu, in turns.

    Args:
        bench: Measures.
        scenario: The program.
        directory: For its snapshot.
        budget: Of the rounds.

    Returns:
        The milliseconds to the first output by way, and after what.

    Raises:
        RunError: One of the ways has failed.
    """
    snapshot = take_snapshot(scenario, directory / scenario.name)
    ways = [
        variants.restored(variants.NATIVE, scenario, snapshot),
        peer_restore.raw(variants.RAW, scenario, snapshot, breakpoints=True),
    ]
    samples = bench.turns(scenario.name, {way.name: pair(way) for way in ways}, budget=budget)
    if len(samples) < len(ways):
        message = "nothing to compare with is left"
        raise RunError(message)
    return {
        name: {moment: summarize(list(times)) for moment, times in zip(MOMENTS, zip(*found, strict=True), strict=True)}
        for name, found in samples.items()
    }


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the table and write JSON if asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.
    """
    options = parse(argv)
    bench = frame.Frame(options)
    table = Table("", *MOMENTS, title="First output, ms")
    everything = bench.each(options.only or PROGRAMS, compare)
    for name, ways in everything.items():
        for way, times in ways.items():
            cells = [f"{one.median:.1f} [dim]{one.low:.1f}..{one.high:.1f}[/dim]" for one in times.values()]
            table.add_row(f"{LABELS.get(name, name)}: {way}", *cells)
    bench.console.print(table)
    bench.write(
        pause={
            name: {way: {moment: one._asdict() for moment, one in times.items()} for way, times in ways.items()}
            for name, ways in everything.items()
        }
    )
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())
