"""
Compare first starts, with nothing of the files in the page cache: conventional, and of snapshots of both engines.

Only root may drop the cache, which is the whole machine's: nothing else should run meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import Sample, Unavailable, moments
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import CRIU, NATIVE
from benchmarks.ways import BY_CRIU, BY_NATIVE, CONVENTIONAL, Start, conventional, restored

DROP = Path("/proc/sys/vm/drop_caches")


def cold(start: Start) -> Callable[[], Sample]:
    """Return a function that starts a program with an empty page cache."""

    def emptied() -> Sample:
        os.sync()  # what is not on the disk yet stays in the cache
        DROP.write_bytes(b"3")
        return start()

    return emptied


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program in each way, in turns."""
    try:
        DROP.write_bytes(b"1")
    except OSError as error:
        raise Unavailable(f"the page cache cannot be dropped here: {error}") from error
    ways = {CONVENTIONAL: cold(conventional(scenario))}
    for name, engine in ((BY_NATIVE, NATIVE), (BY_CRIU, CRIU)):
        snapshot = bench.snapshot(scenario, directory, engine=engine)
        if snapshot is not None:
            ways[name] = cold(restored(scenario, snapshot))
    samples = bench.turns(f"cold {scenario.label}", ways, warm_up=0, budget=budget)
    return {name: moments(found) for name, found in samples.items() if found}


EXPERIMENT = Experiment(
    "compare first starts, with a cold page cache",
    compare,
    lambda _, found: {"cold": found},
    share=3,
    runs=10,
    programs=("pandas", "torch"),
)
