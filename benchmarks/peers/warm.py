"""
Time processes that come from a parent which has everything imported.

They are the floor for what a start can cost when nothing has to be read; but the parent stays, with its memory.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import TIMEOUT, RunError, Sample, milliseconds
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import environment

SERVER = Path(__file__).resolve().with_name("warm_server.py")
PIPE = subprocess.PIPE


class WarmParent:
    """A process that has imported a program, and starts others on command."""

    def __init__(self, process: subprocess.Popen[bytes], expect: str) -> None:
        """Wait until `warm_server.py` is ready, whose children's output begins as expected."""
        if process.stdin is None or process.stderr is None:
            raise AssertionError
        self.command = process.stdin.fileno()
        self.output = process.stdout
        self.answers = process.stderr.fileno()
        self.expect = expect.encode()
        answer = read(self.answers)
        if answer != b"ready\n":
            raise RunError(f"the warm parent says {answer[-200:]!r}")

    def start(self) -> Sample:
        """Start one process, and time its first byte and its end."""
        if self.output is None:
            raise AssertionError
        output = self.output.fileno()
        start = time.monotonic_ns()
        os.write(self.command, b"1 1\n")
        text = read(output)
        first = milliseconds(start)
        self.answer()
        end = milliseconds(start)
        while select.select([output], [], [], 0)[0]:
            text += os.read(output, 65536)
        if not text.startswith(self.expect):
            raise RunError(f"output {text[:80]!r} instead of {self.expect!r}")
        return Sample(first, end)

    def batch(self, count: int, together: int) -> float:
        """Start `count` processes, `together` at once, and return the seconds that it took."""
        os.write(self.command, f"{count} {together}\n".encode())
        return self.answer()

    def answer(self) -> float:
        """Return the seconds that the last command took; raise RunError if a process failed."""
        answer = read(self.answers)
        status, _, seconds = answer.partition(b" ")
        if status != b"0":
            raise RunError(f"a process of the warm parent has failed: {answer[-200:]!r}")
        return float(seconds)


def read(fd: int) -> bytes:
    """Return the next output; raise RunError if there is none."""
    if not select.select([fd], [], [], TIMEOUT)[0]:
        raise RunError(f"no answer within {TIMEOUT:.0f} s")
    return os.read(fd, 65536)


@contextmanager
def warm_parent(kind: str, scenario: Scenario, stdout: int = PIPE) -> Iterator[WarmParent]:
    """Run a warm parent of the kind `fork` or `forkserver` for the block; `WarmParent.start` needs a pipe as output."""
    argv = [sys.executable, str(SERVER), kind, scenario.module]
    env = {**environment(), **scenario.env}
    # For the forkserver, whose sys.path is not that of the process which starts it.
    env["PYTHONPATH"] = os.pathsep.join([str(scenario.program.parent), *filter(None, [env.get("PYTHONPATH")])])
    with subprocess.Popen(argv, env=env, stdin=PIPE, stdout=stdout, stderr=PIPE, bufsize=0) as process:
        try:
            yield WarmParent(process, scenario.expect)
        except RunError:
            process.kill()
            raise
        finally:
            if process.stdin is not None:
                process.stdin.close()
