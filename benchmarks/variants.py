"""The ways to start a program that are compared with each other."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import Sample, measure
from benchmarks.snapshots import Snapshot, command, environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenarios import Scenario

CONVENTIONAL = "conventional"
PYTHON = "launcher in Python"
"""`libcriu-py run` with LIBCRIU_PY_LAUNCHER=python; otherwise it is the next one."""
NATIVE = "libcriu-py-run"
COPIED = "libcriu-py-run, copied"
"""The same, of a snapshot whose memory is read and not mapped."""
WARM = "libcriu-py-run, warmed up"
"""The same, of a snapshot whose program was run before it was saved."""
BRIEF = "libcriu-py-run, OpenMP spins briefly"
"""The same, of a snapshot whose OpenMP threads soon sleep when there is nothing to do."""
RAW = "criu restore"
RAW_COPIED = "criu restore, copied"
PYCRIU = "pycriu"
DMTCP = "DMTCP"
FORK = "os.fork, warm parent"
FORKSERVER = "forkserver"
ARITHMETIC = "arithmetic"
"""A program that does nothing but compute, in one thread."""
BARE = "python3 -I -S -c pass"
TRUE = "/bin/true"
FLOORS = {BARE: [sys.executable, "-I", "-S", "-c", "pass"], TRUE: ["/bin/true"]}
"""Programs that do nothing: what an interpreter, and what any process costs, from start to end."""
OURS = (PYTHON, NATIVE, WARM, COPIED)
ORDER = (CONVENTIONAL, *OURS, RAW, RAW_COPIED, PYCRIU, DMTCP, FORKSERVER, FORK, *FLOORS)


class Variant(NamedTuple):
    """A way to start the program of a scenario."""

    name: str
    start: Callable[[], Sample]


def conventional(scenario: Scenario) -> Variant:
    """
    Start the program as it is always started.

    Args:
        scenario: The program.
    """

    def start() -> Sample:
        argv = [sys.executable, str(scenario.program)]
        return measure(argv, env={**environment(), **scenario.env}, expect=scenario.expect)

    return Variant(CONVENTIONAL, start)


def restored(name: str, scenario: Scenario, snapshot: Snapshot) -> Variant:
    """
    Start the program with one of the package's launchers.

    Args:
        name: One of OURS.
        scenario: The program.
        snapshot: Its snapshot.

    Raises:
        Unavailable: That launcher is not installed.
    """
    # A conventional start in place of a restore would be measured as one.
    launcher = [command(), "run"] if name == PYTHON else [command(NATIVE)]
    argv = [*launcher, "--no-fallback", str(snapshot.directory)]

    env = {**environment(), **({"LIBCRIU_PY_LAUNCHER": "python"} if name == PYTHON else {})}

    def start() -> Sample:
        return measure(argv, env=env, expect=scenario.expect)

    return Variant(name, start)


def floor(name: str) -> Variant:
    """
    Start a program that does nothing.

    Args:
        name: BARE or TRUE.
    """
    return Variant(name, lambda: measure(FLOORS[name], env=environment(), expect=None))
