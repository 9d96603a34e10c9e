"""
Run modules of CPython's test suite in a fresh interpreter and in a restored one, and compare test by test.

Each module runs in a copy of its own, restored from one snapshot of `python -m test`, with a time limit: in one
process, some modules of the suite disturb each other in a fresh interpreter too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

MODULES = (
    *("test_random", "test_time", "test_uuid", "test_tempfile", "test_json", "test_re", "test_decimal", "test_sqlite3"),
    *("test_thread", "test_threading", "test_signal", "test_select", "test_selectors", "test_runpy", "test_import"),
    *("test_logging", "test_locale", "test_io", "test_os", "test_ssl", "test_socket", "test_subprocess"),
    *("test_asyncio", "test_multiprocessing_fork", "test_concurrent_futures"),
)
OF_WORKERS = ("test_concurrent_futures", "test_multiprocessing_spawn")
WARM_WORKERS = Path(__file__).with_name("warm_workers.py")
EXPECTED = Path(__file__).with_name("differences.json")
"""Differences that docs/resources.md and docs/integrations/pools.md explain: for each module, tests and why."""
LEFT_OUT = {"test_socket": ("*VSOCK*",)}
"""Patterns of tests that hang in a fresh interpreter too: those of VSOCK, in a virtual machine with a mute host."""
# How long a process may take to end after SIGTERM before it is killed, in seconds.
_GRACE = 10


class Result(NamedTuple):
    """
    What a run of one module gave.

    Attributes:
        tests: The verdict of each test: ok, failed or skipped.
        status: Exit status; None where the time was up.
        tail: The end of the output.
    """

    tests: dict[str, str]
    status: int | None
    tail: str

    @property
    def summary(self) -> str:
        """Count the verdicts."""
        verdicts = list(self.tests.values())
        counts = " ".join(f"{verdicts.count(kind)} {kind}" for kind in ("ok", "failed", "skipped"))
        return f"{counts}, {'time was up' if self.status is None else f'status {self.status}'}"


def run(command: Sequence[str], module: str, limit: float) -> Result:
    """
    Run one module.

    Args:
        command: What to start, up to the arguments of regrtest.
        module: The module of the suite.
        limit: Seconds that it may take.
    """
    with tempfile.TemporaryDirectory(prefix="cpython-", ignore_cleanup_errors=True) as directory:
        report = Path(directory, "report.xml")
        left_out = [word for pattern in LEFT_OUT.get(module, ()) for word in ("-i", pattern)]
        argv = [*command, "--junit-xml", str(report), "-u", "none", *left_out, module]
        with Path(directory, "output").open("w+b") as output:
            process = subprocess.Popen(
                argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            status = _wait(process, limit)
            output.seek(0)
            tail = output.read().decode("utf-8", "replace")[-2000:]
        return Result(_read(report) if report.exists() else {}, status, tail)


def _wait(process: subprocess.Popen[bytes], limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return None


def _read(report: Path) -> dict[str, str]:
    """Read the JUnit report of regrtest (Lib/test/libregrtest/testresult.py)."""
    verdicts = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - we have just had it written
        kinds = {child.tag for child in case}
        verdict = "failed" if kinds & {"error", "failure"} else "skipped" if "skipped" in kinds else "ok"
        verdicts[case.get("name", "?")] = verdict
    return verdicts


def differences(fresh: Result, restored: Result) -> dict[str, str]:
    """Name the tests with another verdict, and how it differs."""
    if None in {fresh.status, restored.status}:
        # The report is written at the end: there is nothing to compare, which is no success.
        return {"time limit": f"{fresh.summary} -> {restored.summary}"}
    names = sorted(fresh.tests.keys() | restored.tests.keys())
    found = {
        name: f"{fresh.tests.get(name, 'missing')} -> {restored.tests.get(name, 'missing')}"
        for name in names
        if fresh.tests.get(name) != restored.tests.get(name)
    }
    if not found and fresh.status != restored.status:
        found["exit status"] = f"{fresh.status} -> {restored.status}"
    return found


def take_snapshot(python: str, path: str) -> None:
    """Make the snapshot of `python -m test`."""
    command = [python, "-m", "libcriu_py", "snapshot", "-o", path, "-m", "test"]
    subprocess.run(command, check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Compare.

    Args:
        argv: Arguments; None means sys.argv[1:].

    Returns:
        0 where nothing differs that is not explained.
    """
    parser = argparse.ArgumentParser(description="CPython's own tests in a restored interpreter against a fresh one.")
    parser.add_argument("modules", nargs="*")
    parser.add_argument(
        "--warm-workers", action="store_true", help="compare workers of warm_context with those of multiprocessing"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one module (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write all verdicts here")
    parser.add_argument("--show", action="store_true", help="show the output of modules that differ")
    options = parser.parse_args(argv)
    explained: dict[str, dict[str, str]] = json.loads(EXPECTED.read_text())
    unexplained, table = 0, {}
    with tempfile.TemporaryDirectory(prefix="cpython-") as directory:
        snapshot = str(Path(directory, "snap"))
        if options.warm_workers:
            command = [sys.executable, str(WARM_WORKERS)]
        else:
            take_snapshot(sys.executable, snapshot)
            command = [sys.executable, "-m", "libcriu_py", "run", "--no-fallback", snapshot, "--"]
        for module in options.modules or (OF_WORKERS if options.warm_workers else MODULES):
            if importlib.util.find_spec(f"test.{module}") is None:
                print(f"{module}: this Python does not have it", flush=True)
                continue
            fresh = run([sys.executable, "-m", "test"], module, options.timeout)
            restored = run(command, module, options.timeout)
            found = differences(fresh, restored)
            known = explained.get(module, {})
            new = {name: how for name, how in found.items() if name not in known}
            unexplained += len(new)
            table[module] = {"fresh": fresh.summary, "restored": restored.summary, "differences": found}
            print(f"{module}: fresh {fresh.summary}; restored {restored.summary}", flush=True)
            for name, how in found.items():
                print(f"  {name}: {how}{f' ({known[name]})' if name in known else ''}", flush=True)
            if new and options.show:
                print(restored.tail, flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    print(f"{len(table)} modules, {unexplained} differences that are not explained")
    return 1 if unexplained or not table else 0


if __name__ == "__main__":
    raise SystemExit(main())
