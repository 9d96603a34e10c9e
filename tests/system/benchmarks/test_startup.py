"""The startup benchmark, one round of its smallest program: what it measures really happens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]


def measure(tmp_path: Path, **variables: str) -> dict[str, Any]:
    """Run the benchmark and return its JSON."""
    argv = [sys.executable, "-m", "benchmarks.suite", "startup", "--runs", "1", "--only", "empty"]
    argv += ["--results", str(tmp_path)]
    env = {**os.environ, **variables}
    done = subprocess.run(argv, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    values: dict[str, Any] = json.loads((tmp_path / "startup.json").read_text(encoding="utf-8"))
    return values


def test_one_round_measures_every_way_to_start(tmp_path: Path) -> None:
    """A conventional start and the restored one are measured; each peer is, or is named with the reason."""
    values = measure(tmp_path)
    measured = values["scenarios"]["empty"]
    always = {"conventional", "os.fork, warm parent", "forkserver", "/bin/true"}
    assert always <= measured["variants"].keys(), values["skipped"]
    for name in ("criu restore", "criu restore, copied", "pycriu", "DMTCP"):
        assert name in measured["variants"] or any(name in line for line in values["skipped"])
    for variant in measured["variants"].values():
        # Equal for what prints nothing, such as /bin/true.
        assert 0 < variant["first_output_ms"]["median"] <= variant["end_ms"]["median"]
    assert measured["image_bytes"] > 0
    assert values["machine"]["criu"]
    assert re.fullmatch(r"static|\d+ shared libraries", values["machine"]["criu_kind"])


def test_missing_pycriu_is_named(tmp_path: Path) -> None:
    """A directory without pycriu is no reason to stop, and none to be silent."""
    values = measure(tmp_path, PYCRIU=str(tmp_path))
    assert "pycriu" not in values["scenarios"]["empty"]["variants"]
    assert any(line.startswith("pycriu") for line in values["skipped"])
