"""The ways to start a program that are compared with each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.measure import Sample, measure
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import Snapshot, command, environment

Start = Callable[[], Sample]
CONVENTIONAL = "conventional"
LAUNCHER = "libcriu-py-run"
"""The command that restores; not a way to start."""
BY_CRIU = "libcriu-py-run"
"""The launcher, with a snapshot of the engine `criu`; its name is that of results from when there was no other."""
BY_NATIVE = "libcriu-py-run, native engine"
WARM = "libcriu-py-run, warmed up"
"""The same, of a snapshot whose program was run before it was saved."""
NATIVE_WARM = "libcriu-py-run, native engine, warmed up"
COPIED = "libcriu-py-run, copied"
"""The same, of a snapshot whose memory is read and not mapped."""
RAW = "criu restore"
RAW_COPIED = "criu restore, copied"
PYCRIU = "pycriu"
DMTCP = "DMTCP"
FORKSERVER = "forkserver"
FORK = "os.fork, warm parent"
BARE = "python3 -I -S -c pass"
TRUE = "/bin/true"
BRIEF = "libcriu-py-run, OpenMP spins briefly"
"""As BY_CRIU, with a snapshot whose idle OpenMP threads soon sleep."""
ARITHMETIC = "arithmetic"
"""A program that does nothing but compute, in one thread."""


class Look(NamedTuple):
    """How documents show a way to start."""

    label: str
    color: str | None = None
    """In pictures; None leaves it out."""


WAYS = {
    CONVENTIONAL: Look("conventional", "#9aa3ad"),
    BY_NATIVE: Look("restored, native", "#c2417c"),
    NATIVE_WARM: Look("restored, native, warmed up", "#7d2350"),
    BY_CRIU: Look("restored, criu", "#1f6fb2"),
    WARM: Look("restored, criu, warmed up", "#134a78"),
    COPIED: Look("restored, criu, copied", "#4c8f6b"),
    RAW: Look("`criu restore`", "#e0a030"),
    RAW_COPIED: Look("`criu restore`, copied"),
    PYCRIU: Look("pycriu", "#b65d4e"),
    DMTCP: Look("DMTCP", "#8b6bb0"),
    FORKSERVER: Look("forkserver", "#c9b458"),
    FORK: Look("`os.fork`", "#6e7a52"),
    BARE: Look(f"`{BARE}`"),
    TRUE: Look(TRUE),
    BRIEF: Look("restored, criu, OpenMP spins briefly"),
    ARITHMETIC: Look("arithmetic in one thread"),
}
"""All ways, in the order of tables."""
OURS = (BY_NATIVE, NATIVE_WARM, BY_CRIU, WARM, COPIED)
FLOORS = {BARE: [sys.executable, "-I", "-S", "-c", "pass"], TRUE: [TRUE]}
"""Programs that do nothing: what an interpreter, and what any process costs, from start to end."""


def conventional(scenario: Scenario) -> Start:
    """Return a function that starts the program conventionally."""
    argv = [sys.executable, str(scenario.program)]
    env = {**environment(), **scenario.env}
    return lambda: measure(argv, env=env, expect=scenario.expect)


def restored(scenario: Scenario, snapshot: Snapshot) -> Start:
    """Return a function that starts the program with the package's launcher."""
    # A conventional start in place of a restore would be measured as one.
    argv = [command(LAUNCHER), "--no-fallback", str(snapshot.directory)]
    # What the program read before it was saved must be as it was then.
    env = {**environment(), **scenario.env}
    return lambda: measure(argv, env=env, expect=scenario.expect)


def floor(name: str) -> Start:
    """Return a function that starts one of FLOORS."""
    return lambda: measure(FLOORS[name], env=environment(), expect=None)
