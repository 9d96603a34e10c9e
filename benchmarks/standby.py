"""
Compare a copy that waits in a standby pool with a restore, by the time to the first output.

The least that a start can take here is what ``/bin/true`` takes, from just before
it is made until it is reaped; the table tells what the others take beyond that.
All are started in turns, and each standby run when the pool is full again.

Run it as ``python benchmarks/standby.py`` in an environment where the package is
installed with its extra ``bench``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame
from benchmarks.common import RunError, Sample, Summary, measure, milliseconds, summarize
from benchmarks.scenarios import LABELS, SCENARIOS, Scenario
from benchmarks.snapshots import command, environment, take_snapshot
from benchmarks.variants import NATIVE
from libcriu_py import StandbyPool
from libcriu_py.snapshot.manifest import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.budget import Budget

BARE = "/bin/true"
STANDBY = "standby"
RESTORED = "restored"
WARM_UP = 6
"""Runs that do not count: the pool learns from the first four which pages are used."""
REST = 0.1
"""Seconds between a full pool and the next run, in which the newest copy fetches its pages."""


def parse(argv: Sequence[str] | None) -> frame.Selection:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("standby.py", "Compare standby with restores.", runs=30)
    parser.add_only("all whose packages are installed")
    return parser.read(argv, frame.Selection())


def bare() -> Sample:
    """Make a process that executes a program which does nothing, and reap it."""
    start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    pid = os.posix_spawn(BARE, [BARE], environment())
    os.waitpid(pid, 0)
    end = milliseconds(start)
    return Sample(end, end)


def without_pool(snapshot: Path) -> Path:
    """
    Link the files of a snapshot under another name, where no pool is found.

    Args:
        snapshot: The snapshot.

    Returns:
        The other one.
    """
    other = snapshot.with_name(f"{snapshot.name}-alone")
    shutil.copytree(snapshot, other, copy_function=os.link)
    manifest = other / MANIFEST
    text = manifest.read_bytes()
    manifest.unlink()
    manifest.touch(mode=0o600)
    manifest.write_bytes(text)
    return other


def ways(scenario: Scenario, snapshot: Path, pool: StandbyPool) -> dict[str, Callable[[], Sample]]:
    """
    Return the ways to start a program that are compared.

    Args:
        scenario: The program.
        snapshot: Its snapshot.
        pool: The pool of its copies.
    """
    launcher = [command(NATIVE), "--no-fallback"]
    alone = without_pool(snapshot)

    def standby() -> Sample:
        pool.wait_ready()
        time.sleep(REST)
        before = pool.served
        sample = measure([*launcher, str(snapshot)], env=environment(), expect=scenario.expect)
        if pool.served != before + 1:
            message = "the pool has given no copy"
            raise RunError(message)
        return sample

    def restored() -> Sample:
        return measure([*launcher, str(alone)], env=environment(), expect=scenario.expect)

    return {BARE: bare, STANDBY: standby, RESTORED: restored}


def compare(
    bench: frame.Frame[frame.Selection], scenario: Scenario, directory: Path, budget: Budget
) -> dict[str, Summary]:
    """
    Measure a scenario in each way, in turns.

    Args:
        bench: Measures.
        scenario: The program.
        directory: For its snapshots.
        budget: Of the rounds.

    Returns:
        The milliseconds to the first output by way; of the bare program, to its end.

    Raises:
        RunError: One of the ways has failed.
    """
    snapshot = take_snapshot(scenario, directory / scenario.name).directory
    # The measured programs have the terminal of this one, if it has one, but none of their streams is one.
    with StandbyPool(snapshot, size=2, allow=["terminal"]) as pool:
        every = ways(scenario, snapshot, pool)
        samples = bench.turns(scenario.name, every, warm_up=WARM_UP, budget=budget)
    if len(samples) < len(every):
        message = "nothing to compare with is left"
        raise RunError(message)
    return {name: summarize([sample.first for sample in found]) for name, found in samples.items()}


def add_row(table: Table, name: str, measured: dict[str, Summary]) -> None:
    """
    Write a scenario's medians, quartiles and what standby takes over the bare program into the table.

    Args:
        table: The table.
        name: The scenario.
        measured: Its milliseconds by way.
    """
    cells = [f"{one.median:.2f} [dim]{one.low:.2f}..{one.high:.2f}[/dim]" for one in measured.values()]
    table.add_row(LABELS.get(name, name), *cells, f"{over(measured):.2f}")


def over(measured: dict[str, Summary]) -> float:
    """
    Return how many milliseconds standby takes over the bare program, by their medians.

    Args:
        measured: The milliseconds by way.
    """
    return measured[STANDBY].median - measured[BARE].median


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
    table = Table("", BARE, STANDBY, RESTORED, f"{STANDBY} - {BARE}", title="First output, ms")
    everything = bench.each(options.only or list(SCENARIOS), compare)
    for name, measured in everything.items():
        add_row(table, name, measured)
    bench.console.print(table)
    bench.write(
        standby={
            name: {"over_bare": over(measured), "first": {way: one._asdict() for way, one in measured.items()}}
            for name, measured in everything.items()
        }
    )
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())
