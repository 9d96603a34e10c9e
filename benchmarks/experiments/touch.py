"""
Measure jobs that read or write 1 to 100 percent of a program's memory.

The program holds a large array when it is saved. What a copy of it needs for its job depends on how it gets the array:
read at its start, mapped and read page by page, or mapped with the pages that it will write to copied at once, which
were learned (`libcriu-py optimize --learn-pages`). A conventional start makes the array anew.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench, Budget, Experiment
from benchmarks.measure import measure, moments
from benchmarks.scenarios import NUMPY_TOUCH, Scenario
from benchmarks.snapshots import CRIU, NATIVE, command, environment, run_command

CONVENTIONAL, COPIED, MAPPED, LEARNED, BY_NATIVE = WAYS = ("conventional", "copied", "mapped", "learned", "native")


def compare(bench: Bench, scenario: Scenario, directory: Path, budget: Budget) -> list[dict[str, Any]]:
    """Measure all jobs, started in all ways, in turns."""
    program = str(scenario.program)
    jobs = [(kind, share) for kind in ("reads", "writes") for share in bench.options.shares]
    arguments = {job: [str(bench.options.megabytes), *map(str, job)] for job in jobs}
    argvs = {}
    with bench.console.status("snapshots"):
        for name, memory, engine in ((COPIED, "copy", CRIU), (MAPPED, "auto", CRIU), (BY_NATIVE, "auto", NATIVE)):
            words = ("--engine", engine, "--self", "-o", str(directory / name), program, *arguments[jobs[0]])
            run_command("snapshot", *words, memory=memory)
        for job in jobs:
            learned = directory / f"{LEARNED}-{job[0]}-{job[1]}"
            # The same files, and so the same page cache.
            shutil.copytree(directory / MAPPED, learned, copy_function=os.link)
            run_command("optimize", "--learn-pages", " ".join(arguments[job]), str(learned))
            snapshots = {
                COPIED: directory / COPIED,
                MAPPED: directory / MAPPED,
                LEARNED: learned,
                BY_NATIVE: directory / BY_NATIVE,
            }
            argvs[job, CONVENTIONAL] = [sys.executable, program]
            for name, snapshot in snapshots.items():
                argvs[job, name] = [command("libcriu-py-run"), "--no-fallback", str(snapshot), "--"]
    start = partial(measure, env=environment(), expect=scenario.expect)
    starts = {(*job, way): partial(start, [*argv, *arguments[job]]) for (job, way), argv in argvs.items()}
    samples = bench.turns(scenario.label, starts, budget=budget)
    return [
        {
            "kind": kind,
            "share": share,
            "ways": {way: moments(samples[kind, share, way]) for way in WAYS if (kind, share, way) in samples},
        }
        for kind, share in jobs
    ]


EXPERIMENT = Experiment(
    "measure jobs that use a part of a large memory",
    compare,
    lambda options, found: {"megabytes": options.megabytes, "jobs": found[NUMPY_TOUCH.name]},
    share=3,
    runs=7,
    others=lambda _: [NUMPY_TOUCH],
    numbers={
        "megabytes": (1024, "size of the array in MiB"),
        "shares": ((1, 10, 50, 100), "percent of the array that is used"),
    },
)
