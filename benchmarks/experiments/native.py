"""
Count the page faults of native copies, and start 64 copies of the smallest program at once by both engines.

The launcher becomes the program, so they are one process. It stops right before the program goes on
(`libcriu-py-run --stop`), when memory is mapped, and descriptors, threads and timers are there; its faults until then
are in /proc, and those of its whole life are told when it is reaped. What is between is the program's.
"""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.crowd import Crowd
from benchmarks.measure import FIRST, STDIN, STDOUT, RunError, Unavailable, summarize
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import ENGINES, Snapshot, command, environment
from benchmarks.ways import LAUNCHER

AT_ONCE = 64


class Faults(NamedTuple):
    """Page faults of a native copy."""

    program: int
    """From the jump into the program to its end."""
    whole: int
    """From the start of the launcher."""


def count(snapshot: Snapshot) -> Faults:
    """Start a native copy that prints nothing anywhere, and count its page faults; raise RunError if it fails."""
    null = os.open(os.devnull, os.O_RDWR)
    argv = [command(LAUNCHER), "--no-fallback", "--stop", str(snapshot.directory)]
    actions = [(os.POSIX_SPAWN_DUP2, null, STDIN), (os.POSIX_SPAWN_DUP2, null, STDOUT)]
    try:
        pid = os.posix_spawn(argv[0], argv, environment(), file_actions=actions)
    finally:
        os.close(null)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if not os.WIFSTOPPED(status):
        raise RunError(f"the launcher has ended with status {os.waitstatus_to_exitcode(status)}")
    until = faults_of(pid)
    os.kill(pid, signal.SIGCONT)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise RunError(f"a copy has ended with status {os.waitstatus_to_exitcode(status)}")
    whole = usage.ru_minflt + usage.ru_majflt
    return Faults(whole - until, whole)


def faults_of(pid: int) -> int:
    """Return the page faults of a process so far."""
    # The command's name, in parentheses, may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return int(fields[7]) + int(fields[9])


def crowd(scenario: Scenario, snapshot: Snapshot) -> float:
    """Start AT_ONCE copies, and return the ms until all had printed."""
    argv = [command(LAUNCHER), "--no-fallback", str(snapshot.directory)]
    return Crowd(argv, AT_ONCE, environment(), scenario.expect).time().first


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program."""
    taken = {engine: bench.snapshot(scenario, directory, engine=engine) for engine in ENGINES}
    native, _ = taken.values()
    if native is None:
        raise Unavailable("there is no native snapshot")
    faults = bench.turns(f"faults of {scenario.label}", {"": partial(count, native)}, budget=budget.part(4))
    found: dict[str, Any] = {
        f"faults_{name}": summarize(values)
        for samples in faults.values()
        for name, values in zip(Faults._fields, zip(*samples, strict=True), strict=True)
    }
    if scenario.name == "empty":
        ways = {name: partial(crowd, scenario, one) for name, one in taken.items() if one is not None}
        times = bench.turns(f"{AT_ONCE} at once", ways, budget=budget)
        found["at_once"] = {name: {FIRST: summarize(samples)} for name, samples in times.items()}
    return found


EXPERIMENT = Experiment(
    "count the page faults of native copies, and start 64 at once by both engines",
    compare,
    lambda _, found: {"programs": found},
    share=2,
    runs=25,
    programs=("empty", "pandas", "torch"),
)
