"""The tool that causes faults, by a few cases of each kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BY_CHANCE = "criu killed in a dump"
"""What criu has put into a program may end that (docs/reliability.md)."""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="each case has namespaces of its own, which needs root")
@pytest.mark.parametrize(("engine", "kinds"), [("criu", 26), ("native", 13)])
def test_quick_part(engine: str, kinds: int) -> None:
    """Whatever is done to a dump, a snapshot or a restore, nothing is wrong with status 0, hangs, stays or crashes."""
    command = [sys.executable, "-m", "tests.faults", "--quick", "--engine", engine, "--jobs", "3", "--deadline", "50"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=110)
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    heads, *rows = [line for line in lines if not line[0].startswith("---")]
    assert heads[0] == "fault"
    assert len(rows) >= kinds
    for name, tried, right, fell_back, error, wrong, hang, leak, crash in rows:
        counts = [int(count) for count in (right, fell_back, error, wrong, hang, leak, crash)]
        assert sum(counts) == int(tried) > 0, done.stdout
        if name not in {BY_CHANCE, "**all**"}:
            assert (wrong, hang, leak, crash) == ("0", "0", "0", "0"), done.stdout
    assert done.returncode in {0, 1}, done.stderr
