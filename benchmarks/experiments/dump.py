"""
Measure dumps by both engines: from leaving the block to the published name, and how long the program stands still.

The time ends when the snapshot is valid below its name: complete, on the disk, and without the mark of one still
being made. With `then="continue"` a thread of the program ticks; its longest pause is what a user notices, which
includes what the dump does in Python while it holds the interpreter's lock. Beside it stands what the engine itself
says: the native one from asking threads to stop until they go on, criu for as long as it had the process frozen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import TIMEOUT, RunError, summarize
from benchmarks.scenarios import PROGRAMS, Scenario
from benchmarks.snapshots import ENGINES, REFUSAL, environment
from libcriu_py.snapshot.record import MANIFEST
from libcriu_py.snapshot.remains import MARKER

DUMP, STANDSTILL, STOPPED, FSYNC = "dump", "standstill", "stopped", "write and fsync"
LOOK = 0.0005
"""Seconds between two looks for the published name."""
MEGABYTE = 1 << 20


def dump(scenario: Scenario, directory: Path, engine: str, then: str) -> tuple[float, ...]:
    """Dump the program; return the ms until the snapshot had its name, or those for which threads stood still."""
    target = directory / "dumped"
    argv = [sys.executable, str(PROGRAMS / "standing.py"), scenario.module, str(target), engine, then]
    env = {**environment(), **scenario.env}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        if process.stdout is None or process.stderr is None:
            raise AssertionError
        left = process.stdout.readline()
        published = wait_for(target, process) if left and then == "exit" else 0
        rest, said = process.communicate(timeout=TIMEOUT)
    shutil.rmtree(target, ignore_errors=True)
    if refusal := REFUSAL.search(said):
        raise RunError(f"not eligible, as it {refusal[1]}")
    if process.returncode != 0 or not left:
        lines = said.strip().splitlines() or [f"exit status {process.returncode}"]
        raise RunError(f"the dump has failed: {lines[-1]}")
    return tuple(map(float, rest.split())) if then == "continue" else ((published - int(left)) / 1e6,)


def wait_for(snapshot: Path, process: subprocess.Popen[str]) -> int:
    """Wait until a snapshot is published, for as long as the process that makes it runs, and return the time."""
    manifest, mark = snapshot / MANIFEST, snapshot / MARKER
    while not (os.path.lexists(manifest) and not os.path.lexists(mark)) and process.poll() is None:
        time.sleep(LOOK)
    return time.monotonic_ns()


def write(path: Path, megabytes: int) -> tuple[float, ...]:
    """Return the ms that it takes to write so much memory to a new file, and to have it on the disk."""
    block = os.urandom(MEGABYTE) * 64
    start = time.monotonic_ns()
    with path.open("wb", buffering=0) as file:
        for _ in range(0, megabytes, 64):
            file.write(block)
        os.fsync(file.fileno())
    took = (time.monotonic_ns() - start) / 1e6
    path.unlink()
    return (took,)


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Dump a program by both engines, in turns, each so that it ends and so that it goes on."""
    moments = {DUMP: "exit", STANDSTILL: "continue"}
    ways: dict[tuple[str, str], Callable[[], tuple[float, ...]]] = {
        (moment, engine): partial(dump, scenario, directory, engine, then)
        for moment, then in moments.items()
        for engine in ENGINES
    }
    megabytes = int(scenario.env.get("BENCH_MEGABYTES", "0"))
    if megabytes:
        ways[DUMP, FSYNC] = partial(write, directory / "written", megabytes)
    found = bench.turns(f"dumps of {scenario.label}", ways, budget=budget)
    times: dict[str, dict[str, Any]] = {DUMP: {}, STANDSTILL: {}, STOPPED: {}}
    for (moment, way), values in found.items():
        for name, column in zip((moment, STOPPED), zip(*values, strict=True), strict=False):
            times[name][way] = summarize(column)
    return times


EXPERIMENT = Experiment(
    "measure dumps by both engines, and how long a program stands still",
    compare,
    lambda _, found: {"programs": found},
    share=3,
    runs=25,
    programs=("empty", "pandas", "torch", "numpy"),
)
