"""The standby benchmark, one round of its smallest program: what it measures really happens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_one_round_measures_what_is_compared(tmp_path: Path) -> None:
    """A bare program, a copy out of a pool and a restored one are measured, in that order."""
    argv = [sys.executable, "-m", "benchmarks.suite", "standby", "--runs", "1", "--only", "empty"]
    argv += ["--results", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads((tmp_path / "standby.json").read_text(encoding="utf-8"))["standby"]["empty"]
    assert list(measured["first"]) == ["/bin/true", "standby", "restored", "native"]
    medians = {name: summary["median"] for name, summary in measured["first"].items()}
    assert min(medians.values()) > 0
    assert measured["over_bare"] == medians["standby"] - medians["/bin/true"]
    assert "First output, ms" in done.stdout
