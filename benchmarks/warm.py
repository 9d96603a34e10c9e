"""
Time processes that come from a parent which has everything imported.

Unlike a command these cannot be started by whoever likes: one parent stays, with its memory, and its children are what
it is. They are the floor for what a start can cost when nothing has to be read.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.common import TIMEOUT, RunError, Sample, milliseconds
from benchmarks.snapshots import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.scenarios import Scenario

SERVER = Path(__file__).resolve().parent / "peers" / "warm.py"
WARM_UP = 120.0  # seconds in which the parent must have imported the program
PIPE = subprocess.PIPE


class WarmParent:
    """A process that has imported a program, and starts others on command."""

    def __init__(self, process: subprocess.Popen[bytes], scenario: Scenario) -> None:
        """
        Wait until it is ready.

        Args:
            process: ``peers/warm.py``.
            scenario: The program.

        Raises:
            RunError: It does not get ready.
        """
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise AssertionError
        self.command = process.stdin.fileno()
        self.output = process.stdout.fileno()
        self.news = process.stderr.fileno()
        self.expect = scenario.expect.encode()
        answer = self.read(self.news, WARM_UP)
        if answer != b"ready\n":
            message = f"the warm parent says {answer[-200:]!r}"
            raise RunError(message)

    def read(self, fd: int, timeout: float = TIMEOUT) -> bytes:
        """
        Read what comes.

        Args:
            fd: From where.
            timeout: Seconds to wait for it.

        Raises:
            RunError: Nothing came.
        """
        ready, _, _ = select.select([fd], [], [], timeout)
        if not ready:
            message = f"no answer within {timeout:.0f} s"
            raise RunError(message)
        return os.read(fd, 65536)

    def start(self) -> Sample:
        """
        Have one process started, and time its first byte and its end.

        Raises:
            RunError: It failed, or printed something else.
        """
        start = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        os.write(self.command, b"\n")
        text = self.read(self.output)
        first = milliseconds(start)
        status = self.read(self.news)
        end = milliseconds(start)
        while select.select([self.output], [], [], 0)[0]:
            text += os.read(self.output, 65536)
        if status != b"0\n" or not text.startswith(self.expect):
            message = f"status {status!r}, output {text[:80]!r} instead of {self.expect!r}"
            raise RunError(message)
        return Sample(first, end)


@contextmanager
def warm_parent(kind: Literal["fork", "forkserver"], scenario: Scenario) -> Iterator[WarmParent]:
    """
    Have a warm parent for a while.

    Args:
        kind: How it starts processes.
        scenario: The program.

    Raises:
        RunError: It does not get ready.
    """
    argv = [sys.executable, str(SERVER), kind, scenario.program.stem]
    env = {**environment(), **scenario.env}
    # For the forkserver, whose sys.path is not that of the process which starts it.
    env["PYTHONPATH"] = os.pathsep.join([str(scenario.program.parent), *filter(None, [env.get("PYTHONPATH")])])
    with subprocess.Popen(argv, env=env, stdin=PIPE, stdout=PIPE, stderr=PIPE, bufsize=0) as process:
        try:
            yield WarmParent(process, scenario)
        except RunError:
            process.kill()
            raise
        finally:
            if process.stdin is not None:
                process.stdin.close()
