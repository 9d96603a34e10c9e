"""
Start several copies of a torch program at once, and weigh them.

How long it takes until each of 1, 4, 16 and 64 has printed its first output, and until all have ended; and what one of
them takes of the memory while all wait: the proportional set size (PSS) of all its processes, launcher included, in
which a page that n processes share counts as 1/n for each.

Run it as ``python benchmarks/copies.py`` in an environment where the package is installed with its extra ``bench``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from benchmarks import machine
from benchmarks.common import RunError, Summary, round_robin, summarize
from benchmarks.crowd import Crowd
from benchmarks.machine import field
from benchmarks.scenarios import torch_idle
from benchmarks.snapshots import command, environment, take_snapshot
from benchmarks.variants import CONVENTIONAL, COPIED, NATIVE
from libcriu_py.binary import find_criu

if TYPE_CHECKING:
    from collections.abc import Sequence

COUNTS = (1, 4, 16, 64)
LONGEST = 16
"""As many conventional starts at once, or copies that read their memory, take seconds each on two cores: no more."""
WEIGHED = 8
MEMORY_SHARE = 0.7  # of what is available; more copies than fit are not tried
MEGA = 1_000_000
WARM_UP = 1  # rounds


class Together(NamedTuple):
    """
    A number of copies that were started at once: ms until all had printed, and until all had ended.
    """

    first: Summary
    end: Summary


class Options(argparse.Namespace):
    """
    The command line.
    """

    runs: int
    counts: list[int]
    json: Path | None


class Session:
    """
    What one invocation measures, and what it leaves out.
    """

    def __init__(self, console: Console, directory: Path, options: Options) -> None:
        """
        Take the snapshots.

        Args:
            console: Where progress is shown.
            directory: For the snapshots.
            options: The command line.

        """
        self.console = console
        self.options = options
        self.scenario = torch_idle()
        self.skipped: list[str] = []
        launcher = [command(NATIVE), "--no-fallback"]
        self.ways: dict[str, list[str]] = {CONVENTIONAL: [sys.executable, str(self.scenario.program)]}
        for name, memory in ((NATIVE, "auto"), (COPIED, "copy")):
            with console.status(f"snapshot, {memory}"):
                snapshot = take_snapshot(self.scenario, directory / memory, memory)
            self.ways[name] = [*launcher, str(snapshot.directory)]

    def crowd(self, name: str, count: int) -> Crowd:
        """
        Describe copies that are started at once.

        Args:
            name: The way they are started.
            count: How many.

        """
        return Crowd(self.ways[name], count, environment(), self.scenario.expect)

    def skip(self, what: str) -> None:
        """
        Leave something out, and say so here and in the JSON.

        Args:
            what: What is left out and why, in a sentence.

        """
        self.skipped.append(what)
        self.console.print(f"[yellow]skipped:[/yellow] {what}", highlight=False)

    def weigh(self) -> dict[str, dict[str, float]]:
        """
        Return the bytes that one of ``WEIGHED`` waiting copies takes, and that a single one takes, by way.
        """
        weights: dict[str, dict[str, float]] = {}
        for name in self.ways:
            with self.console.status(f"weighing {name}"):
                alone = self.crowd(name, 1).weigh()
                together = self.crowd(name, WEIGHED).weigh()
            weights[name] = {"alone": alone.pss, "one_of_many": together.pss / WEIGHED, "private": together.private}
            weights[name]["private"] /= WEIGHED
        return weights

    def kinds(self, weights: dict[str, dict[str, float]]) -> list[tuple[str, int]]:
        """
        Return what is to be started at once, without what would not fit, or take minutes.

        Args:
            weights: What `weigh` returned.

        """
        available = int(field("/proc/meminfo", "MemAvailable").split()[0]) * 1024 * MEMORY_SHARE
        kinds = []
        for name in self.ways:
            for count in self.options.counts:
                needed = weights[name]["private"] * count
                if needed > available:
                    self.skip(f"{count} at once, {name}: {needed / MEGA:.0f} MB do not fit into the memory")
                elif count > LONGEST and name != NATIVE:
                    self.skip(f"{count} at once, {name}: would take minutes; {LONGEST} are the most that are tried")
                else:
                    kinds.append((name, count))
        return kinds

    def time(self, kinds: Sequence[tuple[str, int]]) -> dict[str, dict[int, Together]]:
        """
        Start copies at once, all kinds in turns.

        Args:
            kinds: Ways and numbers.

        """
        firsts: dict[tuple[str, int], list[float]] = {}
        ends: dict[tuple[str, int], list[float]] = {}
        failed: set[tuple[str, int]] = set()
        with self.console.status("") as status:
            for number, kind in round_robin(kinds, WARM_UP + self.options.runs):
                if kind in failed:
                    continue
                status.update(f"round {number + 1}: {kind[1]} at once, {kind[0]}")
                try:
                    first, end = self.crowd(*kind).time()
                except RunError as error:
                    failed.add(kind)
                    self.skip(f"{kind[1]} at once, {kind[0]}: {error}")
                    continue
                if number >= WARM_UP:
                    firsts.setdefault(kind, []).append(first)
                    ends.setdefault(kind, []).append(end)
        measured: dict[str, dict[int, Together]] = {name: {} for name in self.ways}
        for name, count in kinds:
            if (name, count) not in failed:
                together = Together(summarize(firsts[name, count]), summarize(ends[name, count]))
                measured[name][count] = together
        return measured


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    """
    parser = argparse.ArgumentParser(prog="copies.py", description="Start several copies at once, and weigh them.")
    parser.add_argument("--runs", "--rounds", type=int, default=5, metavar="N", help="rounds (default: 5)")
    parser.add_argument(
        "--counts",
        type=lambda text: [int(word) for word in text.split(",")],
        default=sorted({*COUNTS, WEIGHED}),
        metavar="N,N...",
        help="how many at once (default: 1,4,8,16,64)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON")
    options = parser.parse_args(argv, namespace=Options())
    if options.runs < 1 or min(options.counts) < 1:
        parser.error("--runs and --counts must be at least 1")
    return options


def table(measured: dict[str, dict[int, Together]], weights: dict[str, dict[str, float]]) -> Table:
    """
    Make the table.

    Args:
        measured: The times.
        weights: The memory.

    """
    result = Table(title="Copies of torch at once, ms: all first outputs / all ended (medians)")
    counts = sorted({count for times in measured.values() for count in times})
    result.add_column("started by")
    for count in counts:
        result.add_column(str(count), justify="right")
    result.add_column(f"MB each (PSS, {WEIGHED} wait)", justify="right")
    for name, times in measured.items():
        cells = [
            f"{times[count].first.median:.0f} / {times[count].end.median:.0f}" if count in times else "-"
            for count in counts
        ]
        result.add_row(name, *cells, f"{weights[name]['one_of_many'] / MEGA:.1f}")
    return result


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the table and write JSON if asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.

    """
    options = parse(argv)
    console = Console()
    missing = torch_idle().missing()
    if missing:
        console.print(f"[yellow]skipped:[/yellow] not installed: {', '.join(missing)} (pip install '.[bench]')")
        return 1
    with tempfile.TemporaryDirectory(prefix="libcriu_py-bench-") as directory:
        session = Session(console, Path(directory), options)
        weights = session.weigh()
        measured = session.time(session.kinds(weights))
    console.print(table(measured, weights))
    if options.json is not None:
        values = {
            "machine": machine.describe(find_criu(), environment()),
            "runs": options.runs,
            "weighed": WEIGHED,
            "bytes": {name: {key: round(size) for key, size in sizes.items()} for name, sizes in weights.items()},
            "at_once": {
                name: {
                    count: {"first_output_ms": both.first._asdict(), "end_ms": both.end._asdict()}
                    for count, both in times.items()
                }
                for name, times in measured.items()
            },
            "skipped": session.skipped,
        }
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
