"""The benchmark of jobs that use a part of their memory, one round of a small one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_one_round_measures_every_way(tmp_path: Path) -> None:
    """Reading and writing is measured with each way to get memory."""
    argv = [sys.executable, "-m", "benchmarks.suite", "touch", "--runs", "1", "--megabytes", "8", "--share", "100"]
    argv += ["--results", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = json.loads((tmp_path / "touch.json").read_text(encoding="utf-8"))["jobs"]
    assert [(job["kind"], job["share"]) for job in jobs] == [("reads", 100), ("writes", 100)]
    for job in jobs:
        assert list(job["ways"]) == ["conventional", "copied", "mapped", "learned", "native"]
        for times in job["ways"].values():
            assert 0 < times["first_output_ms"]["median"] <= times["end_ms"]["median"]
    assert "writes 100 %" in done.stdout
