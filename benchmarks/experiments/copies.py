"""
Start several copies of a torch program at once, and weigh them.

A program that does nothing but compute, in one thread, for about as long as a copy takes, says what the processors
allow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.crowd import Crowd
from benchmarks.machine import memory
from benchmarks.measure import Sample, Summary, moments
from benchmarks.scenarios import PROGRAMS, TORCH_IDLE, Scenario
from benchmarks.snapshots import CRIU, NATIVE, NotEligible, command, environment, take_snapshot
from benchmarks.ways import ARITHMETIC, BRIEF, BY_CRIU, BY_NATIVE, CONVENTIONAL, COPIED, LAUNCHER
from libcriu_py.cli._summary import SPIN_COUNT

LONGEST = 16
"""As many conventional starts at once, or copies that read their memory, take seconds each on two cores: no more."""
WEIGHED = 8
MEMORY_SHARE = 0.7  # of what is available; more copies than fit are not tried
MEGA = 1_000_000


def crowds(bench: Bench, scenario: Scenario, directory: Path) -> dict[str, Callable[[int], Crowd]]:
    """Take the snapshots, and return what describes a number of processes, by the way they are started."""

    def crowd(*argv: str, expect: str = scenario.expect) -> Callable[[int], Crowd]:
        return lambda count: Crowd(argv, count, environment(), expect)

    found = {CONVENTIONAL: crowd(sys.executable, str(scenario.program))}
    brief = scenario._replace(env={"GOMP_SPINCOUNT": SPIN_COUNT})
    kinds = (
        (BY_NATIVE, scenario, "auto", NATIVE),
        (BY_CRIU, scenario, "auto", CRIU),
        (BRIEF, brief, "auto", CRIU),
        (COPIED, scenario, "copy", CRIU),
    )
    for number, (name, prepared, kind, engine) in enumerate(kinds):
        with bench.console.status(f"snapshot for {name}"):
            try:
                snapshot = take_snapshot(prepared, directory / f"snapshot{number}", kind, engine=engine)
            except NotEligible as refusal:
                bench.skip(f"{name}: not eligible, as it {refusal}")
                continue
        found[name] = crowd(command(LAUNCHER), "--no-fallback", str(snapshot.directory))
    found[ARITHMETIC] = crowd(sys.executable, "-I", "-S", str(PROGRAMS / "arithmetic.py"), expect="ready")
    return found


def weigh(crowd: Callable[[int], Crowd]) -> dict[str, float]:
    """Return the bytes that a single process takes, and those of one of WEIGHED that wait."""
    alone, together = crowd(1).weigh(), crowd(WEIGHED).weigh()
    return {"alone": alone.pss, "one_of_many": together.pss / WEIGHED, "private": together.private / WEIGHED}


def fits(bench: Bench, name: str, count: int, private: float) -> bool:
    """Return whether so many processes can be started at once, of which each has so much memory; say why not."""
    if private * count > memory("MemAvailable") * MEMORY_SHARE:
        bench.skip(f"{count} at once, {name}: {private * count / MEGA:.0f} MB do not fit into the memory")
        return False
    if count > LONGEST and name in {CONVENTIONAL, COPIED}:
        bench.skip(f"{count} at once, {name}: more than {LONGEST} would take minutes")
        return False
    return True


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Weigh the processes, then start them at once, all kinds in turns."""
    ways = crowds(bench, scenario, directory)
    with bench.console.status("weighing"):
        weights = {name: weigh(crowd) for name, crowd in ways.items()}

    def together(name: str, count: int) -> Callable[[], Sample]:
        return lambda: ways[name](count).time()

    kinds = {
        (name, count): together(name, count)
        for name in ways
        for count in bench.options.counts
        if fits(bench, name, count, weights[name]["private"])
    }
    times: dict[str, dict[int, dict[str, Summary]]] = {name: {} for name in ways}
    for (name, count), found in bench.turns("copies", kinds, budget=budget).items():
        times[name][count] = moments(found)
    sizes = {name: {key: round(size) for key, size in weight.items()} for name, weight in weights.items()}
    return {"weighed": WEIGHED, "bytes": sizes, "at_once": times}


EXPERIMENT = Experiment(
    "start several copies at once, and weigh them",
    compare,
    lambda _, found: dict(found[TORCH_IDLE.name]),
    share=5,
    runs=5,
    others=lambda _: [TORCH_IDLE],
    numbers={"counts": ((1, 4, WEIGHED, 16, 64), "how many at once")},
)
