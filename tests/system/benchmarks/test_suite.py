"""All benchmarks in one go: results, pictures and documents, for one part of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_a_part_is_measured_and_put_into_the_documents(tmp_path: Path) -> None:
    """The documents get the table of what was measured, and keep the others."""
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/benchmarks.md"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    argv = [sys.executable, "-m", "benchmarks.suite", "--only", "modes", "--minutes", "0.3", "--runs", "2"]
    argv += ["--results", str(tmp_path / "results"), "--root", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "bench: modes, part 1 of 1: 0.3 minutes planned" in done.stdout
    assert "README.md: times was not measured, and stays as it is" in done.stderr
    assert (tmp_path / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()
    measured = json.loads((tmp_path / "results" / "modes.json").read_text(encoding="utf-8"))
    first = measured["modes"]["empty: libcriu-py-run, rootless"]["first"]["median"]
    assert f"| empty: libcriu-py-run, rootless | {first:.1f} (" in (tmp_path / "docs/benchmarks.md").read_text(
        encoding="utf-8"
    )
