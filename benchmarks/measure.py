"""
Time programs to their first output and to their end, and summarise the times.

Only the standard library is used, and little of it: the measuring process should be small and quiet.
"""

from __future__ import annotations

import os
import select
import signal
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

FIRST, END = "first_output_ms", "end_ms"
TIMEOUT = 120.0  # seconds without any output after which a run has failed
STDIN, STDOUT, STDERR = 0, 1, 2


class RunError(Exception):
    """A measured program did not do what it should."""


class Unavailable(Exception):
    """Something that a measurement needs is missing here; the message names it."""


class Sample(NamedTuple):
    """One run: milliseconds since just before the process was made."""

    first: float
    """Until the first byte of output could be read."""
    end: float
    """Until the process was reaped."""


class Summary(NamedTuple):
    """What several measurements of the same thing say, in the samples' unit."""

    median: float
    low: float
    """The first quartile: a quarter of the samples is below."""
    high: float
    """The third quartile: a quarter of the samples is above."""
    least: float
    greatest: float
    runs: int

    @property
    def spread(self) -> float:
        """Return the distance between the quartiles."""
        return self.high - self.low


def summarize(samples: Iterable[float]) -> Summary:
    """
    Return the median, quartiles and extremes of samples.

    The median and not the mean: a machine that is busy for a moment makes some runs much slower and none faster.
    """
    ordered = sorted(samples)
    if not ordered:
        raise ValueError("no samples to summarize")
    if len(ordered) == 1:
        low = median = high = ordered[0]
    else:
        low, median, high = statistics.quantiles(ordered, n=4, method="inclusive")
    return Summary(median, low, high, ordered[0], ordered[-1], len(ordered))


def moments(samples: Sequence[Sample]) -> dict[str, Summary]:
    """Return the summaries of the times to the first output and to the end."""
    return {FIRST: summarize(sample.first for sample in samples), END: summarize(sample.end for sample in samples)}


def ratio(slow: Summary, fast: Summary) -> float:
    """Return how many times faster one thing is than another, by medians, of which the latter's is above zero."""
    if fast.median <= 0:
        raise ValueError(f"no ratio to a median of {fast.median}")
    return slow.median / fast.median


def plain(value: Any) -> Any:
    """Return a value as JSON holds it, summaries as dictionaries."""
    if isinstance(value, Summary):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def milliseconds(since: int) -> float:
    """Return the time since an earlier `time.monotonic_ns()`."""
    return (time.monotonic_ns() - since) / 1e6


def measure(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    copies: Sequence[tuple[int, int]] = (),
    expect: str | None = "",
) -> Sample:
    """
    Run a program and time its first byte of output and its end.

    The first byte is seen by the read end of a pipe becoming readable. Standard input is the null device; standard
    error is kept for the error message.

    Args:
        argv: The command; the first item is a path.
        env: Its environment; this process' by default.
        copies: More fds for the program as pairs of an fd and its number there. They are copied in order and after the
            standard ones, so that an fd of 0, 1 or 2 means the program's own.
        expect: What the output must begin with; None for a program that prints nothing, whose end counts as its first
            output.

    Raises:
        RunError: The program failed, printed something else, or hung.
    """
    with ExitStack() as stack:
        output, write_end = os.pipe()
        stack.callback(os.close, output)
        errors = os.memfd_create("stderr")
        stack.callback(os.close, errors)
        null = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, null)
        pairs = [(null, STDIN), (write_end, STDOUT), (errors, STDERR), *copies]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for fd, number in pairs]
        environ = dict(os.environ if env is None else env)
        start = time.monotonic_ns()
        try:
            pid = os.posix_spawn(argv[0], list(argv), environ, file_actions=actions)
        finally:
            os.close(write_end)
        first, text = read_all(output, pid, start)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        end = milliseconds(start)
        if first is None and expect is None:
            first, expect = end, ""
        if status != 0 or first is None or expect is None or not text.startswith(expect.encode()):
            raise RunError(failure(status, text, expect or "", errors))
        return Sample(first, end)


def failure(status: int, text: bytes, expect: str, errors: int) -> str:
    """Describe how a program failed; `errors` holds its standard error."""
    size = os.fstat(errors).st_size
    said = os.pread(errors, 1000, max(0, size - 1000)).decode(errors="replace")
    lines = said.strip().splitlines() or ["nothing"]
    return f"status {status}, output {text[:80]!r} instead of {expect!r}, on stderr: {lines[-1]}"


def read_all(fd: int, pid: int, start: int) -> tuple[float | None, bytes]:
    """Return the ms from the start until the first byte of a pipe, if any, and all bytes; kill a process that hangs."""
    first = None
    text = bytearray()
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while True:
        if not poller.poll(TIMEOUT * 1000):
            os.kill(pid, signal.SIGKILL)
            return first, bytes(text)
        chunk = os.read(fd, 65536)
        if first is None and chunk:
            first = milliseconds(start)
        if not chunk:
            return first, bytes(text)
        text += chunk
