"""Start a number of processes at once; time them, and weigh them."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import field
from benchmarks.measure import STDIN, STDOUT, TIMEOUT, RunError, Sample, milliseconds


class Weight(NamedTuple):
    """Bytes of memory that processes take."""

    pss: float
    """The proportional set size: a page that n processes have counts as 1/n for each."""
    private: float
    """What nothing else has."""


class Crowd:
    """Processes of the same command: each prints a line, then waits until its standard input ends."""

    def __init__(self, argv: Sequence[str], count: int, env: Mapping[str, str], expect: str) -> None:
        """Describe them, with what the output of each must begin with; nothing is started yet."""
        self.argv = list(argv)
        self.count = count
        self.env = env
        self.expect = expect.encode()

    def time(self) -> Sample:
        """Start them with nothing to wait for, and return the ms until all had printed, and until all had ended."""
        with ExitStack() as stack:
            null = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, null)
            start = time.monotonic_ns()
            pids = self.start(null, stack)
            first = milliseconds(start)
            reap(pids)
            return Sample(first, milliseconds(start))

    def weigh(self) -> Weight:
        """Start them, and add up their memory while all wait."""
        with ExitStack() as stack:
            theirs, ours = os.pipe()
            stack.callback(os.close, theirs)
            with os.fdopen(ours, "wb"):
                pids = self.start(theirs, stack)
                weights = [weight_of(pid) for first in pids for pid in family(first)]
            reap(pids)
            return Weight(sum(weight.pss for weight in weights), sum(weight.private for weight in weights))

    def start(self, stdin: int, stack: ExitStack) -> list[int]:
        """Start them all, wait until each has printed, and return their pids; the stack ends those that are left."""
        pids: list[int] = []
        outputs = []
        stack.callback(kill, pids)
        for _ in range(self.count):
            output, write_end = os.pipe()
            stack.callback(os.close, output)
            outputs.append(output)
            actions = [(os.POSIX_SPAWN_DUP2, stdin, STDIN), (os.POSIX_SPAWN_DUP2, write_end, STDOUT)]
            try:
                pids.append(os.posix_spawn(self.argv[0], self.argv, self.env, file_actions=actions))
            finally:
                os.close(write_end)
        for output in outputs:
            if not select.select([output], [], [], TIMEOUT)[0]:
                raise RunError(f"one of {self.count} has printed nothing for {TIMEOUT:.0f} s")
            text = os.read(output, 65536)
            if not text.startswith(self.expect):
                raise RunError(f"output {text[:80]!r} instead of {self.expect!r}")
        return pids


def reap(pids: list[int]) -> None:
    """Wait for the ends of all processes, and forget them; raise RunError if one failed."""
    statuses = set()
    while pids:
        statuses.add(os.waitstatus_to_exitcode(os.waitpid(pids[-1], 0)[1]))
        pids.pop()
    if statuses != {0}:
        raise RunError(f"they ended with {sorted(statuses)}")


def kill(pids: list[int]) -> None:
    """End processes."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def family(pid: int) -> list[int]:
    """Return a process, its children, their children, and so on."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            for child in path.read_text(encoding="ascii").split():
                found += family(int(child))
    return found


def weight_of(pid: int) -> Weight:
    """Return what a process takes, which must be one's own unless one is root; nothing where it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup")
        pss, *private = (int(field(rollup, name).split()[0]) for name in ("Pss", "Private_Clean", "Private_Dirty"))
    except (FileNotFoundError, ProcessLookupError):
        return Weight(0, 0)
    return Weight(pss * 1024, sum(private) * 1024)
