"""
Compare a copy that waits in a standby pool with a restore, by the time to the first output.

The least that a start can take here is what `/bin/true` takes, from just before it is made until it is reaped; the
table tells what the others take beyond that. Each standby run is started when the pool is full again.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import RunError, Sample, milliseconds, summarize
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.snapshots import NATIVE, environment, take_snapshot
from benchmarks.ways import TRUE, Start, restored
from libcriu_py import StandbyPool
from libcriu_py.snapshot.record import MANIFEST

STANDBY = "standby"
RESTORED = "restored"
BY_NATIVE = "native"
WARM_UP = 6
"""Runs that do not count: the pool learns from the first four which pages are used."""
REST = 0.1
"""Seconds between a full pool and the next run, in which the newest copy fetches its pages."""


def bare() -> Sample:
    """Make a process that executes a program which does nothing, and reap it."""
    start = time.monotonic_ns()
    pid = os.posix_spawn(TRUE, [TRUE], environment())
    os.waitpid(pid, 0)
    end = milliseconds(start)
    return Sample(end, end)


def without_pool(snapshot: Path) -> Path:
    """Return another directory with the same files, for which there is no pool."""
    other = snapshot.with_name(f"{snapshot.name}-alone")
    shutil.copytree(snapshot, other, copy_function=os.link)
    manifest = other / MANIFEST
    text = manifest.read_bytes()
    manifest.unlink()
    manifest.touch(mode=0o600)
    manifest.write_bytes(text)
    return other


def from_pool(pool: StandbyPool, start: Start) -> Start:
    """Return a function that starts a program when the pool is full, and checks that the pool served its copy."""

    def served() -> Sample:
        pool.wait_ready()
        time.sleep(REST)
        before = pool.served
        sample = start()
        if pool.served != before + 1:
            raise RunError("the pool has given no copy")
        return sample

    return served


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program in each way, in turns."""
    snapshot = take_snapshot(scenario, directory / "snapshot")
    native = bench.snapshot(scenario, directory, engine=NATIVE)
    alone = snapshot._replace(directory=without_pool(snapshot.directory))
    # The measured programs have the terminal of this one, if it has one, but none of their streams is one.
    with StandbyPool(snapshot.directory, size=2, allow=["terminal"]) as pool:
        ways = {
            TRUE: bare,
            STANDBY: from_pool(pool, restored(scenario, snapshot)),
            RESTORED: restored(scenario, alone),
        }
        if native is not None:
            ways[BY_NATIVE] = restored(scenario, native)
        samples = bench.turns(scenario.name, ways, warm_up=WARM_UP, budget=budget, complete=True)
    first = {name: summarize(sample.first for sample in found) for name, found in samples.items()}
    return {"over_bare": first[STANDBY].median - first[TRUE].median, "first": first}


EXPERIMENT = Experiment(
    "compare standby with restores",
    compare,
    lambda _, found: {"standby": found},
    share=3,
    runs=30,
    programs=tuple(SCENARIOS),
)
