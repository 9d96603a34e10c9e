"""
Measure what memory costs: the start of a program with a numpy array of 8 MB to 4 GB.

Conventional, restored by criu with the memory read and with the memory mapped, and restored by the native engine; also
how long the dump takes, and how large the images are. Each size has its snapshots removed before the next is measured.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import Unavailable, moments
from benchmarks.scenarios import Scenario, numpy
from benchmarks.snapshots import CRIU, NATIVE
from benchmarks.ways import BY_CRIU, BY_NATIVE, CONVENTIONAL, COPIED, conventional, restored

FREE = 4  # times the array: the snapshots, and what the dump needs meanwhile
MEGA = 1_000_000


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure the program with an array of one size."""
    free = shutil.disk_usage(directory).free
    if free < FREE * int(scenario.name) << 20:
        raise Unavailable(f"{free / MEGA:.0f} MB are free in {directory.parent}, too few for the snapshots")
    kinds = ((BY_NATIVE, "auto", NATIVE), (BY_CRIU, "map", CRIU), (COPIED, "copy", CRIU))
    taken = {name: bench.snapshot(scenario, directory, memory, engine=engine) for name, memory, engine in kinds}
    snapshots = {name: snapshot for name, snapshot in taken.items() if snapshot is not None}
    ways = {CONVENTIONAL: conventional(scenario)}
    ways |= {name: restored(scenario, snapshot) for name, snapshot in snapshots.items()}
    samples = bench.turns(scenario.label, ways, budget=budget)
    times = {name: moments(runs) for name, runs in samples.items()}
    return {
        **{moment: {name: both[moment] for name, both in times.items()} for moment in ("first_output_ms", "end_ms")},
        "snapshot_seconds": {name: round(snapshot.seconds, 2) for name, snapshot in snapshots.items()},
        "frozen_seconds": {name: snapshot.frozen for name, snapshot in snapshots.items()},
        "image_bytes": {name: snapshot.image_bytes for name, snapshot in snapshots.items()},
    }


EXPERIMENT = Experiment(
    "measure what memory costs at the start",
    compare,
    lambda _, found: {"sizes": found},
    share=4,
    runs=5,
    others=lambda options: [numpy(size, str(size), f"{size} MB") for size in options.sizes],
    numbers={"sizes": ((8, 32, 128, 512, 1024, 2048, 4096), "sizes of the array, MB")},
)
