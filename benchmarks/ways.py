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
NATIVE = "libcriu-py-run"
WARM = "libcriu-py-run, warmed up"
"""The same, of a snapshot whose program was run before it was saved."""
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
"""As NATIVE, of a snapshot whose idle OpenMP threads soon sleep."""
ARITHMETIC = "arithmetic"
"""A program that does nothing but compute, in one thread."""


class Look(NamedTuple):
    """How documents show a way to start."""

    label: str
    color: str | None = None
    """In pictures; None leaves it out."""


WAYS = {
    CONVENTIONAL: Look("conventional", "#9aa3ad"),
    NATIVE: Look("restored", "#1f6fb2"),
    WARM: Look("restored, warmed up", "#134a78"),
    COPIED: Look("restored, copied", "#4c8f6b"),
    RAW: Look("`criu restore`", "#e0a030"),
    RAW_COPIED: Look("`criu restore`, copied"),
    PYCRIU: Look("pycriu", "#b65d4e"),
    DMTCP: Look("DMTCP", "#8b6bb0"),
    FORKSERVER: Look("forkserver", "#c9b458"),
    FORK: Look("`os.fork`", "#6e7a52"),
    BARE: Look(f"`{BARE}`"),
    TRUE: Look(TRUE),
    BRIEF: Look("restored, OpenMP spins briefly"),
    ARITHMETIC: Look("arithmetic in one thread"),
}
"""All ways, in the order of tables."""
OURS = (NATIVE, WARM, COPIED)
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
    argv = [command(NATIVE), "--no-fallback", str(snapshot.directory)]
    return lambda: measure(argv, env=environment(), expect=scenario.expect)


def floor(name: str) -> Start:
    """Return a function that starts one of FLOORS."""
    return lambda: measure(FLOORS[name], env=environment(), expect=None)
