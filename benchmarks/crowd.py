"""Start a number of processes at once; time them, and weigh them."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import field
from benchmarks.measure import TIMEOUT, RunError, Sample, milliseconds


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
        self.argv = argv
        self.count = count
        self.env = env
        self.expect = expect.encode()

    def time(self) -> Sample:
        """Start them with nothing to wait for, and return the ms until all had printed, and until all had ended."""
        with ExitStack() as stack:
            start = time.monotonic_ns()
            processes = self.start(subprocess.DEVNULL, stack)
            first = milliseconds(start)
            reap(processes)
            return Sample(first, milliseconds(start))

    def weigh(self) -> Weight:
        """Start them, and add up their memory while all wait."""
        with ExitStack() as stack:
            processes = self.start(subprocess.PIPE, stack)
            weights = [weight_of(pid) for process in processes for pid in family(process.pid)]
            reap(processes)
            return Weight(sum(weight.pss for weight in weights), sum(weight.private for weight in weights))

    def start(self, stdin: int, stack: ExitStack) -> list[subprocess.Popen[bytes]]:
        """Start them all, and wait until each has printed; the stack ends those that are left."""
        processes: list[subprocess.Popen[bytes]] = []
        for _ in range(self.count):
            process = subprocess.Popen(self.argv, env=self.env, stdin=stdin, stdout=subprocess.PIPE, bufsize=0)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            if process.stdout is None or not select.select([process.stdout], [], [], TIMEOUT)[0]:
                raise RunError(f"one of {self.count} has printed nothing for {TIMEOUT:.0f} s")
            text = process.stdout.read(65536)
            if not text.startswith(self.expect):
                raise RunError(f"output {text[:80]!r} instead of {self.expect!r}")
        return processes


def reap(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Let processes go on, and wait for all their ends; raise RunError if one failed."""
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
    statuses = {process.wait() for process in processes}
    if statuses != {0}:
        raise RunError(f"they ended with {sorted(statuses)}")


def family(pid: int) -> list[int]:
    """Return a process, its children, their children, and so on."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            for child in path.read_text(encoding="ascii").split():
                found += family(int(child))
    return found


def weight_of(pid: int) -> Weight:
    """Return what a process takes, which must be one's own unless one is root."""
    path = f"/proc/{pid}/smaps_rollup"
    pss, clean, dirty = (int(field(path, name).split()[0]) * 1024 for name in ("Pss", "Private_Clean", "Private_Dirty"))
    return Weight(pss, clean + dirty)
