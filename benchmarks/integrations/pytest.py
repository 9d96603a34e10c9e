"""One test of a project that imports pandas, by pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.integrations import Case

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
SETTLED = ROOT / "tests" / "system" / "auto" / "settled.py"
PYTEST = str(BIN / "pytest")
FIRST = 2
"""Starts before those that are measured: a conventional one, and one that shows what else is imported."""


def _env(place: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "LIBCRIU_PY_CACHE": str(place / "cache")}


def _run(place: Path, *command: str | Path) -> None:
    subprocess.run(command, cwd=place / "project", env=_env(place), check=True, stdout=subprocess.DEVNULL)


def _prepare(place: Path) -> None:
    shutil.copytree(ROOT / "examples" / "pytest", place / "project", dirs_exist_ok=True)
    _run(place, BIN / "libcriu-py", "shim", PYTEST, "--into", place / "shims")
    for _ in range(FIRST):
        _run(place, sys.executable, "-I", SETTLED, place / "shims" / "pytest", "-q")


def _seconds(place: Path, *command: str) -> float:
    start = time.perf_counter()
    _run(place, *command, "-q")
    return time.perf_counter() - start


def _plain(place: Path) -> float:
    return _seconds(place, PYTEST)


def _by_option(place: Path) -> float:
    return _seconds(place, PYTEST, "--warm")


def _by_shim(place: Path) -> float:
    return _seconds(place, str(place / "shims" / "pytest"))


CASES = [
    Case("pytest --warm, one test with pandas", 2.5, _prepare, _plain, _by_option),
    Case("pytest by its shim, one test with pandas", 6, _prepare, _plain, _by_shim),
]
