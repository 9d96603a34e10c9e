"""Processes that are started at once are timed, weighed with all that they have started, and not left behind."""

from __future__ import annotations

import os
import sys

import pytest

from benchmarks.crowd import Crowd
from benchmarks.measure import RunError

MEGABYTE = 1 << 20
WAITING = "import sys; block = bytearray(b'x' * ({} << 20)); print('ready', flush=True); sys.stdin.read()"
# Its child has the memory and prints; it ends when the child does.
PARENT = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {WAITING!r}.format(40)]))"


def crowd(code: str, count: int = 2) -> Crowd:
    """Describe a number of interpreters that run some code."""
    return Crowd([sys.executable, "-I", "-S", "-c", code], count, os.environ, "ready")


def test_time_is_until_the_last_has_printed_and_ended() -> None:
    """The end comes after the first output."""
    first, end = crowd(WAITING.format(1), 3).time()
    assert 0 < first < end


@pytest.mark.parametrize("code", [WAITING.format(40), PARENT], ids=["itself", "its child"])
def test_weight_has_the_memory_of_each(code: str) -> None:
    """Memory that nothing shares counts for each process, in whatever part of its family it is."""
    weight = crowd(code).weigh()
    assert 2 * 40 * MEGABYTE <= weight.private <= weight.pss <= 2 * 80 * MEGABYTE


@pytest.mark.parametrize(
    ("code", "message"),
    [("print('else', flush=True)", "b'else"), ("print('ready', flush=True); raise SystemExit(3)", "[3]")],
)
def test_failure_of_one_is_a_failure_of_all(code: str, message: str) -> None:
    """Neither another output nor a bad end is measured."""
    with pytest.raises(RunError) as caught:
        crowd(code).time()
    assert message in str(caught.value)
