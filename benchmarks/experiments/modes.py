"""
Compare the privilege modes: launch to first output, for each mode that works.

Which those are depends on who runs it (docs/unprivileged.md).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import Unavailable, measure, summarize
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import CRIU, NATIVE, NotEligible, command, environment, run_command
from libcriu_py.criu.find import find_criu
from libcriu_py.privilege.decision import capable_criu, find_obstacle
from libcriu_py.privilege.mode import Privilege

MODES = (Privilege.ROOT, Privilege.CAPABILITY, Privilege.ROOTLESS)
NATIVE_ENGINE = "native engine"
"""In the place of a mode, of which it has none."""
WARM_UP = 3  # rounds
LAUNCHERS: dict[str, list[str]] = {"libcriu-py-run": [], "libcriu-py": ["run"]}
"""The commands that restore, with their subcommand."""


def variables(mode: Privilege) -> dict[str, str]:
    """Return the environment in which a mode is used."""
    criu = capable_criu(find_criu()) if mode is Privilege.CAPABILITY else find_criu()
    return {**environment(), "LIBCRIU_PY_MODE": mode.value, "LIBCRIU_PY_CRIU": criu}


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> dict[str, Any]:
    """Measure a program in each mode that works, with each launcher, in turns."""
    kinds = {NATIVE_ENGINE: (NATIVE, environment())}
    for mode in MODES:
        obstacle = find_obstacle(mode, find_criu())
        if obstacle is None:
            kinds[mode.value] = (CRIU, variables(mode))
        else:
            bench.skip(f"{mode.value}: {obstacle}")
    ways = {}
    for kind, (engine, env) in kinds.items():
        target = directory / kind.replace(" ", "-")
        words = ("-o", str(target), "--engine", engine, "--learn", "", str(scenario.program))
        try:
            run_command("snapshot", *words, env=env, cwd=directory)
        except NotEligible as refusal:
            bench.skip(f"{scenario.label}, {kind}: not eligible, as it {refusal}")
            continue
        for name, subcommand in LAUNCHERS.items():
            argv = [command(name), *subcommand, "--no-fallback", str(target)]
            ways[name, kind] = partial(measure, argv, env=env, expect=scenario.expect)
    if not ways:
        raise Unavailable("no mode works")
    return {
        ", ".join(way): {
            "first": summarize(sample.first for sample in samples),
            "end": summarize(sample.end for sample in samples),
        }
        for way, samples in bench.turns(scenario.name, ways, warm_up=WARM_UP, budget=budget).items()
    }


EXPERIMENT = Experiment(
    "compare the privilege modes",
    compare,
    lambda _, found: {
        "uid": os.geteuid(),
        "modes": {f"{name}: {way}": found[name][way] for name in found for way in found[name]},
    },
    share=2,
    runs=30,
    programs=("empty", "torch"),
)
