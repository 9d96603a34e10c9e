"""
What the start of a criu program costs, since each start of a copy pays for it.

Most of it is the loading of shared libraries: CRIU with all that it can use has 20 and takes 3 to 6 ms, where one
that is linked statically takes 0.6 ms, like any small program.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_RUNS = 9
_SMALL = "/bin/true"
_QUIET = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
_TRACE = {"LD_TRACE_LOADED_OBJECTS": "1"}
_FLOOR = 0.0006  # seconds: what a small program takes where there is none to measure


class Cost(NamedTuple):
    """What it costs to start a program, in seconds."""

    start: float
    """From its fork to its end, when it has nothing to do."""
    least: float
    """What a small program takes for that."""

    @property
    def excess(self) -> float:
        """What could be saved."""
        return max(0.0, self.start - self.least)


def measure(criu: str) -> Cost | None:
    """
    Measure the start of a criu program beside that of a small one, in turns.

    It is the least of some runs: what else runs on the machine only ever adds to it.

    Args:
        criu: The program.

    Returns:
        The cost; None where it does not run.
    """
    small = _time(_SMALL)
    ours = _time(criu, "--version")
    for _ in range(_RUNS - 1):
        if ours is None:
            return None
        ours = min(ours, _time(criu, "--version") or ours)
        if small is not None:
            small = min(small, _time(_SMALL) or small)
    return Cost(ours or 0.0, _FLOOR if small is None else small)


def _time(program: str, *arguments: str) -> float | None:
    begin = time.perf_counter()
    try:
        # criu is given no variable of the caller's by the launchers either.
        pid = os.posix_spawn(program, [program, *arguments], {}, file_actions=_QUIET)
    except OSError:
        return None
    _, status = os.waitpid(pid, 0)
    return time.perf_counter() - begin if status == 0 else None


def libraries(program: str) -> int | None:
    """
    Count the shared libraries that a dynamic program loads, those of its libraries included.

    Args:
        program: The program, which is not started: the dynamic linker only tells what it would load (ld.so(8)).

    Returns:
        How many; None where it cannot be told.
    """
    import subprocess

    try:
        done = subprocess.run([program], env=_TRACE, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.count(b" => ")
