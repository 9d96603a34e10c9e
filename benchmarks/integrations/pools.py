"""Pools of four workers that use pandas, from their making to the last of their first results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.integrations import Case
from benchmarks.measure import RunError, Unavailable

_PROGRAM = """
import sys, time

KIND, IS_WARM = sys.argv[1], sys.argv[2] == "warm"

def work(number):
    import pandas
    return float(pandas.Series(range(number)).sum())

def results():
    import libcriu_py
    if KIND == "spawn":
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor
        start = time.monotonic()
        context = libcriu_py.warm_context(["pandas"]) if IS_WARM else multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(4, mp_context=context) as pool:
            return list(pool.map(work, range(4))), time.monotonic() - start
    __import__(KIND)
    start = time.monotonic()
    if IS_WARM:
        sys.executable = libcriu_py.executable([KIND, "pandas"])
    if KIND == "loky":
        import loky
        with loky.ProcessPoolExecutor(4) as pool:
            return list(pool.map(work, range(4))), time.monotonic() - start
    import joblib
    return joblib.Parallel(4)(joblib.delayed(work)(number) for number in range(4)), time.monotonic() - start

if __name__ == "__main__":
    found, seconds = results()
    assert found == [0.0, 0.0, 1.0, 3.0], found
    print(seconds)
"""


def _run(place: Path, kind: str, way: str) -> float:
    env = {**os.environ, "LIBCRIU_PY_CACHE": str(place / "cache")}
    argv = [sys.executable, str(place / "program.py"), kind, way]
    done = subprocess.run(argv, cwd=place, env=env, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunError(f"{kind}: {done.stderr}")
    return float(done.stdout)


def _case(kind: str, name: str, bar: float) -> Case:
    def prepare(place: Path) -> None:
        for package in ("pandas", *([kind] if kind != "spawn" else [])):
            if subprocess.run([sys.executable, "-c", f"import {package}"], check=False).returncode != 0:
                raise Unavailable(f"{package} is not installed")
        (place / "program.py").write_text(_PROGRAM, encoding="utf-8")
        _run(place, kind, "warm")

    return Case(
        name,
        bar,
        prepare,
        conventional=lambda place: _run(place, kind, "conventional"),
        warm=lambda place: _run(place, kind, "warm"),
    )


CASES = [
    _case("spawn", "`ProcessPoolExecutor`, four workers with pandas", 8),
    _case("loky", "loky, four workers with pandas", 5),
    _case("joblib", "joblib, four workers with pandas", 5),
]
