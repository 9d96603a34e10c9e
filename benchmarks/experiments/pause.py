"""
Compare a start after a pause, as people start programs, with one right after another.

To stop what it restores, criu sets hardware breakpoints, and the first one on a machine that had none for a second
makes the kernel wait for an RCU grace period. The launchers have criu do without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import summarize
from benchmarks.peers.criu import raw
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import NATIVE, take_snapshot
from benchmarks.ways import BY_CRIU, BY_NATIVE, RAW, Start, restored

PAUSE = 1.5
"""Seconds; for one after the last event the kernel stays ready (`unaccount_event` in kernel/events/core.c)."""
MOMENTS = ("after a pause", "right after another")


def pair(start: Start) -> Callable[[], tuple[float, float]]:
    """Return a function that times the first output of a start after a pause, and of one right after it."""

    def both() -> tuple[float, float]:
        time.sleep(PAUSE)
        return start().first, start().first

    return both


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program by the launcher and by criu, in turns."""
    snapshot = take_snapshot(scenario, directory / "snapshot")
    native = bench.snapshot(scenario, directory, engine=NATIVE)
    ways = {BY_NATIVE: pair(restored(scenario, native))} if native else {}
    ways |= {
        BY_CRIU: pair(restored(scenario, snapshot)),
        RAW: pair(raw(RAW, scenario, snapshot, breakpoints=True)),
    }
    samples = bench.turns(scenario.name, ways, budget=budget, complete=True)
    return {
        name: {moment: summarize(times) for moment, times in zip(MOMENTS, zip(*found, strict=True), strict=True)}
        for name, found in samples.items()
    }


EXPERIMENT = Experiment(
    "compare a start after a pause with one right after another",
    compare,
    lambda _, found: {"pause": found},
    share=2,
    runs=10,
    programs=("empty", "pandas", "torch"),
)
