"""
Count how many copies of a ready program can be spawned a second.

They are started one after the other, and several at once; each prints its line and ends.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import RunError, summarize
from benchmarks.peers.warm import warm_parent
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import NATIVE, command, environment, take_snapshot
from benchmarks.ways import BARE, BY_CRIU, BY_NATIVE, FLOORS, LAUNCHER
from libcriu_py.copies.restore import restore

Spawn = Callable[[], AbstractContextManager[Any]]
"""Starts a copy that has `wait()`."""

DEVNULL = subprocess.DEVNULL


def batch(spawn: Spawn, count: int, together: int) -> float:
    """Spawn `count` copies, `together` at once, wait for their ends, and return the seconds that it took."""
    start = time.monotonic()
    for _ in range(0, count, together):
        with ExitStack() as stack:
            copies = [stack.enter_context(spawn()) for _ in range(together)]
            statuses = [copy.wait() for copy in copies]
        if any(statuses):
            raise RunError(f"copies ended with {statuses}")
    return time.monotonic() - start


def process(*argv: str) -> Spawn:
    """Return a function that starts a command."""
    return lambda: subprocess.Popen(argv, env=environment(), stdin=DEVNULL, stdout=DEVNULL)


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure batches of all ways, in turns."""
    count, together = bench.options.count, bench.options.together
    if count % together:
        raise RunError("--count must be a multiple of --together")
    snapshot = take_snapshot(scenario, directory / "snapshot").directory
    options = ["--no-fallback", str(snapshot)]
    native = bench.snapshot(scenario, directory, engine=NATIVE)
    spawns: dict[str, Spawn] = {
        "subprocess": process(sys.executable, str(scenario.program)),
        "libcriu-py run": process(command(), "run", *options),
        BY_CRIU: process(command(LAUNCHER), *options),
        "libcriu_py.copies.restore": lambda: restore(snapshot, stdin=DEVNULL, stdout=DEVNULL),
    }
    if native is not None:
        spawns[BY_NATIVE] = process(command(LAUNCHER), "--no-fallback", str(native.directory))
    if scenario.name == "empty":
        spawns[BARE] = process(*FLOORS[BARE])
    batches: dict[str, Callable[[int, int], float]] = {name: partial(batch, spawn) for name, spawn in spawns.items()}

    def rate(name: str, together: int) -> Callable[[], float]:
        return lambda: count / batches[name](count, together)

    with warm_parent("forkserver", scenario, DEVNULL) as parent:
        batches["forkserver"] = parent.batch
        kinds = {(name, number): rate(name, number) for name in batches for number in (1, together)}
        found = {kind: summarize(rates) for kind, rates in bench.turns(scenario.name, kinds, budget=budget).items()}
    return {name: {"one_by_one": found.get((name, 1)), "at_once": found.get((name, together))} for name in batches}


EXPERIMENT = Experiment(
    "count the copies that can be spawned a second",
    compare,
    lambda options, found: {"count": options.count, "together": options.together, "copies_per_second": found},
    share=2,
    runs=5,
    programs=("empty", "pandas"),
    numbers={"count": (16, "copies in a batch"), "together": (8, "copies at once")},
)
