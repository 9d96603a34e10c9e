"""Start a number of processes at once; time them, and weigh them."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import STDERR, STDIN, STDOUT, TIMEOUT, RunError, milliseconds
from benchmarks.machine import field

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KILOBYTE = 1024


class Weight(NamedTuple):
    """Bytes of memory that processes take."""

    pss: float
    """A page that n processes have counts as 1/n for each."""
    private: float
    """What nothing else has."""


class Crowd:
    """Processes of the same command: each prints a line, then waits until its standard input ends."""

    def __init__(self, argv: Sequence[str], count: int, env: Mapping[str, str], expect: str) -> None:
        """
        Describe them; nothing is started yet.

        Args:
            argv: The command; the first item is a path.
            count: How many.
            env: Their environment.
            expect: What the output of each must begin with.
        """
        self.argv = list(argv)
        self.count = count
        self.env = dict(env)
        self.expect = expect.encode()
        self.pids: list[int] = []
        self.outputs: list[int] = []

    def time(self) -> tuple[float, float]:
        """
        Start them with nothing to wait for.

        Returns:
            Milliseconds until the last had printed, and until the last had ended.

        Raises:
            RunError: One failed.
        """
        with ExitStack() as stack:
            null = os.open(os.devnull, os.O_RDONLY)
            stack.callback(os.close, null)
            stack.callback(self.kill)
            start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
            self.start(null, stack)
            self.read_lines()
            first = milliseconds(start)
            self.reap()
            return first, milliseconds(start)

    def weigh(self) -> Weight:
        """
        Start them, and add up their memory while all wait.

        Raises:
            RunError: One failed.
        """
        with ExitStack() as stack:
            theirs, ours = os.pipe()
            stack.callback(os.close, theirs)
            with ExitStack() as until_weighed:
                until_weighed.callback(os.close, ours)
                stack.callback(self.kill)
                self.start(theirs, stack)
                self.read_lines()
                weights = [weight_of(pid) for first in self.pids for pid in family(first)]
            self.reap()
            return Weight(sum(weight.pss for weight in weights), sum(weight.private for weight in weights))

    def start(self, stdin: int, stack: ExitStack) -> None:
        """
        Start them all.

        Args:
            stdin: Their standard input.
            stack: Closes the pipes.
        """
        for _ in range(self.count):
            output, write_end = os.pipe()
            stack.callback(os.close, output)
            self.outputs.append(output)
            actions = [(os.POSIX_SPAWN_DUP2, stdin, STDIN), (os.POSIX_SPAWN_DUP2, write_end, STDOUT)]
            actions += [(os.POSIX_SPAWN_DUP2, STDERR, STDERR)]
            try:
                self.pids.append(os.posix_spawn(self.argv[0], self.argv, self.env, file_actions=actions))
            finally:
                os.close(write_end)

    def read_lines(self) -> None:
        """
        Wait until each has printed.

        Raises:
            RunError: One printed something else, or nothing.
        """
        waiting = set(self.outputs)
        poller = select.poll()
        for output in waiting:
            poller.register(output, select.POLLIN)
        while waiting:
            ready = poller.poll(TIMEOUT * 1000)
            if not ready:
                message = f"{len(waiting)} of {self.count} have printed nothing for {TIMEOUT:.0f} s"
                raise RunError(message)
            for output, _ in ready:
                text = os.read(output, 65536)
                if not text.startswith(self.expect):
                    message = f"output {text[:80]!r} instead of {self.expect!r}"
                    raise RunError(message)
                poller.unregister(output)
                waiting.remove(output)

    def reap(self) -> None:
        """
        Wait for all their ends.

        Raises:
            RunError: One failed.
        """
        statuses = []
        while self.pids:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(self.pids[-1], 0)[1]))
            self.pids.pop()
        if any(statuses):
            message = f"they ended with {sorted(set(statuses))}"
            raise RunError(message)

    def kill(self) -> None:
        """End those that are left."""
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self.pids:
            os.waitpid(pid, 0)


def family(pid: int) -> list[int]:
    """
    Return a process, its children, their children, and so on.

    Args:
        pid: The process.
    """
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            for child in path.read_text(encoding="ascii").split():
                found += family(int(child))
    return found


def weight_of(pid: int) -> Weight:
    """
    Return what a process takes.

    Args:
        pid: The process; as root, or one's own.
    """
    path = f"/proc/{pid}/smaps_rollup"
    sizes = {name: int(field(path, name).split()[0]) for name in ("Pss", "Private_Clean", "Private_Dirty")}
    return Weight(sizes["Pss"] * KILOBYTE, (sizes["Private_Clean"] + sizes["Private_Dirty"]) * KILOBYTE)
