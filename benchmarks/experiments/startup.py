"""
Compare a program's conventional start with all other ways to start it.

The same images are also restored with the `criu restore` command and with pycriu, so that what the hand-over costs can
be told from what CRIU costs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ways
from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import END, FIRST, RunError, Sample, Unavailable, moments, ratio
from benchmarks.peers.criu import pycriu, raw
from benchmarks.peers.dmtcp import dmtcp
from benchmarks.peers.warm import warm_parent
from benchmarks.scenarios import SCENARIOS, Scenario
from benchmarks.snapshots import NATIVE, Snapshot
from benchmarks.ways import BY_CRIU, BY_NATIVE, CONVENTIONAL, COPIED, NATIVE_WARM, OURS, RAW, RAW_COPIED, WARM, Start


def makers(
    scenario: Scenario, directory: Path, snapshots: dict[str, Snapshot | None], stack: ExitStack
) -> dict[str, Callable[[], Start]]:
    """Return functions that prepare each way to start a program; the stack ends warm parents."""
    found: dict[str, Callable[[], Start]] = {CONVENTIONAL: partial(ways.conventional, scenario)}
    for name, snapshot in snapshots.items():
        if snapshot is not None:
            found[name] = partial(ways.restored, scenario, snapshot)
    for name, restored in ((RAW, BY_CRIU), (RAW_COPIED, COPIED)):
        if (snapshot := snapshots[restored]) is not None:
            found[name] = partial(raw, name, scenario, snapshot)
    if (snapshot := snapshots[BY_CRIU]) is not None:
        found[ways.PYCRIU] = partial(pycriu, scenario, snapshot)
    found[ways.DMTCP] = partial(dmtcp, scenario, directory / "dmtcp")

    def warm(kind: str) -> Start:
        return stack.enter_context(warm_parent(kind, scenario)).start

    found |= {ways.FORKSERVER: partial(warm, "forkserver"), ways.FORK: partial(warm, "fork")}
    if scenario.name == "empty":
        found |= {name: partial(ways.floor, name) for name in ways.FLOORS}
    return {name: found[name] for name in ways.WAYS if name in found}


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program with every way to start it that there is."""
    snapshot = bench.snapshot(scenario, directory, "auto")
    copied = bench.snapshot(scenario, directory, "copy")
    warm = bench.snapshot(scenario, directory, "auto", warm=True)
    native = bench.snapshot(scenario, directory, engine=NATIVE)
    native_warm = bench.snapshot(scenario, directory, warm=True, engine=NATIVE)
    snapshots = {BY_NATIVE: native, NATIVE_WARM: native_warm, BY_CRIU: snapshot, WARM: warm, COPIED: copied}
    starts: dict[str, Start] = {}
    with ExitStack() as stack:
        for name, make in makers(scenario, directory, snapshots, stack).items():
            try:
                starts[name] = make()
            except Unavailable as error:
                bench.skip(str(error))
            except RunError as error:
                bench.skip(f"{name} of {scenario.name}: {error}")
        samples = bench.turns(scenario.name, starts, budget=budget)
    return {**times(samples), **sizes(snapshots)}


def times(samples: dict[str, list[Sample]]) -> dict[str, Any]:
    """Return the times of each way, and how they compare."""
    found = {name: moments(runs) for name, runs in samples.items()}

    def speed_up(name: str) -> list[float] | None:
        if not {name, CONVENTIONAL} <= found.keys():
            return None
        return [ratio(found[CONVENTIONAL][moment], found[name][moment]) for moment in (FIRST, END)]

    def over_criu(name: str) -> float | None:
        """Return the ms that a launcher needs more than criu alone for the same snapshot, to the first output."""
        criu = RAW_COPIED if name == COPIED else RAW
        return found[name][FIRST].median - found[criu][FIRST].median if {name, criu} <= found.keys() else None

    return {
        "variants": {name: {**both, "runs_ms": samples[name]} for name, both in found.items()},
        "speed_up": {name: speed_up(name) for name in OURS},
        "launcher_ms": {name: over_criu(name) for name in (BY_CRIU, COPIED)},
    }


def sizes(snapshots: dict[str, Snapshot | None]) -> dict[str, Any]:
    """Return what the snapshots took."""
    snapshot = snapshots[BY_CRIU]
    return {
        "image_bytes": snapshot.image_bytes if snapshot else None,
        "mapped": snapshot is not None and snapshot.memory_key is not None,
        "dumps": {
            name: {"image_bytes": one.image_bytes, "seconds": round(one.seconds, 2), "frozen_seconds": one.frozen}
            for name, one in snapshots.items()
            if one is not None and name not in {WARM, NATIVE_WARM}
        },
        "mode": snapshot.launch.mode if snapshot else None,
    }


EXPERIMENT = Experiment(
    "compare a conventional start with a restored one",
    compare,
    lambda _, found: {"scenarios": found},
    share=9,
    runs=15,
    programs=tuple(SCENARIOS),
)
