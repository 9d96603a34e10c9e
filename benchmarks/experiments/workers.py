"""Compare how soon workers of multiprocessing that use pandas have their first results."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import RunError, summarize
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import environment

PROGRAM = Path(__file__).parents[1] / "programs" / "workers.py"
COPIES, SPAWN, FORKSERVER = "warm_context", "spawn", "forkserver"


def first_results(kind: str, cache: Path) -> Callable[[], float]:
    """Return a function for the ms from the making of a pool to all first results, its context's making included."""

    def measure() -> float:
        env = {**environment(), "XDG_CACHE_HOME": str(cache)}
        done = subprocess.run([sys.executable, PROGRAM, kind], env=env, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RunError(f"{kind}: {done.stderr}")
        return float(done.stdout)

    return measure


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure the contexts, in turns; the first round makes the snapshot, and does not count."""
    ways = {kind: first_results(kind, directory) for kind in (COPIES, FORKSERVER, SPAWN)}
    found = bench.turns(f"workers {scenario.label}", ways, budget=budget)
    return {kind: summarize(samples) for kind, samples in found.items() if samples}


EXPERIMENT = Experiment(
    "compare how soon workers of multiprocessing have their first results",
    compare,
    lambda _, found: {"workers": found},
    share=2,
    runs=12,
    programs=("pandas",),
)
