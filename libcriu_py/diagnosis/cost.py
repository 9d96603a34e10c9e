"""
Measure what starting criu costs, which is part of every start of a copy.

Most of it is loading shared libraries: a full CRIU has 20 and takes 3 to 6 ms, while a statically linked one takes 0.6
ms, like any small program.
"""

from __future__ import annotations

import os
import time
from typing import NamedTuple

_RUNS = 9
_SMALL = "/bin/true"
_QUIET = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
_TRACE = {"LD_TRACE_LOADED_OBJECTS": "1"}
_FLOOR = 0.0006  # seconds: what a small program takes, if there is none to measure


class Cost(NamedTuple):
    """The cost of starting a program, in seconds."""

    start: float
    """From its fork to its end, when it has nothing to do."""
    least: float
    """What a small program takes."""

    @property
    def excess(self) -> float:
        """The avoidable part."""
        return max(0.0, self.start - self.least)


def measure(criu: str) -> Cost | None:
    """
    Measure the start of criu and of a small program, in turns.

    The result is the minimum of several runs, because other load on the machine only ever adds time.

    Args:
        criu: The program.

    Returns:
        The cost; None if criu does not run.
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
        # The launcher gives criu none of the caller's variables either.
        pid = os.posix_spawn(program, [program, *arguments], {}, file_actions=_QUIET)
    except OSError:
        return None
    _, status = os.waitpid(pid, 0)
    return time.perf_counter() - begin if status == 0 else None


def libraries(program: str) -> int | None:
    """
    Count the shared libraries that a dynamic program loads, directly and indirectly.

    Args:
        program: The program, which does not run: the dynamic linker only lists what it would load (ld.so(8)).

    Returns:
        The number; None if it is unknown.
    """
    import subprocess

    try:
        done = subprocess.run([program], env=_TRACE, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError:
        return None
    return None if done.returncode else done.stdout.count(b" => ")
