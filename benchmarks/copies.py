"""
Start several copies of a torch program at once, and weigh them.

How long it takes until each of 1, 4, 16 and 64 has printed its first output, and until all have ended; and what one of
them takes of the memory while all wait: the proportional set size (PSS) of all its processes, launcher included, in
which a page that n processes share counts as 1/n for each. A program that does nothing but compute, in one thread, for
about as long as a copy takes, says what the processors allow.

Run it as ``python benchmarks/copies.py`` in an environment where the package is installed with its extra ``bench``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame
from benchmarks.common import Summary, summarize
from benchmarks.crowd import Crowd
from benchmarks.machine import field
from benchmarks.scenarios import PROGRAMS, torch_idle
from benchmarks.snapshots import command, environment, take_snapshot
from benchmarks.variants import ARITHMETIC, BRIEF, CONVENTIONAL, COPIED, NATIVE
from libcriu_py.cli.snapshot import SPIN_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COUNTS = (1, 4, 16, 64)
LONGEST = 16
"""As many conventional starts at once, or copies that read their memory, take seconds each on two cores: no more."""
WEIGHED = 8
MEMORY_SHARE = 0.7  # of what is available; more copies than fit are not tried
MEGA = 1_000_000


class Way(NamedTuple):
    """How a program is started: the command, and what its output begins with."""

    argv: list[str]
    expect: str


class Together(NamedTuple):
    """A number of copies that were started at once: ms until all had printed, and until all had ended."""

    first: Summary
    end: Summary


class Options(frame.Options):
    """The command line."""

    counts: list[int]


class Session:
    """What one invocation measures, and what it leaves out."""

    def __init__(self, bench: frame.Frame[Options], directory: Path) -> None:
        """
        Take the snapshots.

        Args:
            bench: Measures, and says what is left out.
            directory: For the snapshots.
        """
        self.bench = bench
        scenario = torch_idle()
        launcher = [command(NATIVE), "--no-fallback"]
        self.ways = {CONVENTIONAL: Way([sys.executable, str(scenario.program)], scenario.expect)}
        brief = scenario._replace(env={**scenario.env, "GOMP_SPINCOUNT": SPIN_COUNT})
        for name, prepared, memory in (
            (NATIVE, scenario, "auto"),
            (BRIEF, brief, "auto"),
            (COPIED, scenario, "copy"),
        ):
            with bench.console.status(f"snapshot for {name}"):
                snapshot = take_snapshot(prepared, directory / f"snapshot{len(self.ways)}", memory)
            self.ways[name] = Way([*launcher, str(snapshot.directory)], scenario.expect)
        self.ways[ARITHMETIC] = Way([sys.executable, "-I", "-S", str(PROGRAMS / "arithmetic.py")], "ready")

    def crowd(self, name: str, count: int) -> Crowd:
        """
        Describe copies that are started at once.

        Args:
            name: The way they are started.
            count: How many.
        """
        way = self.ways[name]
        return Crowd(way.argv, count, environment(), way.expect)

    def weigh(self) -> dict[str, dict[str, float]]:
        """Return the bytes that one of ``WEIGHED`` waiting copies takes, and that a single one takes, by way."""
        weights: dict[str, dict[str, float]] = {}
        for name in self.ways:
            with self.bench.console.status(f"weighing {name}"):
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
            for count in self.bench.options.counts:
                needed = weights[name]["private"] * count
                if needed > available:
                    self.bench.skip(f"{count} at once, {name}: {needed / MEGA:.0f} MB do not fit into the memory")
                elif count > LONGEST and name in {CONVENTIONAL, COPIED}:
                    self.bench.skip(f"{count} at once, {name}: more than {LONGEST} would take minutes")
                else:
                    kinds.append((name, count))
        return kinds

    def time(self, kinds: Sequence[tuple[str, int]]) -> dict[str, dict[int, Together]]:
        """
        Start copies at once, all kinds in turns.

        Args:
            kinds: Ways and numbers.
        """

        def together(name: str, count: int) -> Callable[[], tuple[float, float]]:
            return lambda: self.crowd(name, count).time()

        found = self.bench.turns("copies", {kind: together(*kind) for kind in kinds})
        measured: dict[str, dict[int, Together]] = {name: {} for name in self.ways}
        for (name, count), times in found.items():
            firsts, ends = zip(*times, strict=True)
            measured[name][count] = Together(summarize(firsts), summarize(ends))
        return measured


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("copies.py", "Start several copies at once, and weigh them.", runs=5)
    parser.add_counts("--counts", sorted({*COUNTS, WEIGHED}), "how many at once")
    return parser.read(argv, Options())


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
    bench = frame.Frame(parse(argv))
    if not bench.has(torch_idle()):
        return 1
    with bench.directory() as directory:
        session = Session(bench, directory)
        weights = session.weigh()
        measured = session.time(session.kinds(weights))
    bench.console.print(table(measured, weights))
    bench.write(
        weighed=WEIGHED,
        bytes={name: {key: round(size) for key, size in sizes.items()} for name, sizes in weights.items()},
        at_once={
            name: {
                count: {"first_output_ms": both.first._asdict(), "end_ms": both.end._asdict()}
                for count, both in times.items()
            }
            for name, times in measured.items()
        },
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
