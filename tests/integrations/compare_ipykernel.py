"""
Run ipykernel's own tests with its conventional kernel and with a warm one, and compare the outcomes.

    scripts/test-ipykernel [ARGUMENTS OF PYTEST]

The tests are those of the source distribution of the installed version. They start the kernel `python3`, which is warm
in the second run; a test of ours makes sure of that.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

BIN = Path(sys.executable).parent
EXPLAINED: dict[str, str] = {}
"""Tests that differ, and why."""
SETUP = """
import os
from unittest.mock import patch
import pytest

@pytest.fixture(autouse=True)
def _restore_variables():
    with patch.dict(os.environ):
        yield
"""
"""Applications in the process of the tests set variables that modules of kernels read when they are imported."""
OURS = """
import os
from .utils import execute, kernel
def test_kernel_is_the_one_that_is_meant():
    with kernel() as client:
        is_copy = "'libcriu_py.program.noting' in __import__('sys').modules"
        _, reply = execute(f"assert ({is_copy}) is {os.environ['IS_WARM']}")
    assert reply["status"] == "ok"
"""


def fetch(place: Path) -> Path:
    """Get the source of the installed version; return its directory."""
    wanted = f"ipykernel=={version('ipykernel')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "ipykernel", wanted]
    subprocess.run([*command, "-d", place], check=True)
    (archive,) = place.glob("ipykernel-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(place, filter="data")
    source = place / archive.name.removesuffix(".tar.gz")
    (source / "tests" / "test_ours.py").write_text(OURS)
    shutil.rmtree(source / "ipykernel")  # the installed one is tested
    (source / "ipykernel_launcher.py").unlink()
    # It sets HOME and PYTHONPATH for each test, for which no copy can be the interpreter, and installs its own kernel.
    (source / "tests" / "__init__.py").write_text(SETUP)
    return source


def outcomes(source: Path, env: dict[str, str], arguments: list[str]) -> dict[str, str]:
    """Run the tests; return what came of each."""
    report = source / "report.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        "tests",
        *arguments,
    ]
    subprocess.run(command, cwd=source, env=env, check=False, stdin=subprocess.DEVNULL)
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - it is ours
        kinds = [child.tag for child in case if child.tag in {"failure", "error", "skipped"}]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def main() -> int:
    """Compare; return 1 if tests differ and nobody knows why."""
    place = Path(tempfile.mkdtemp(prefix="ipykernel-"))
    try:
        source = fetch(place)
        env = {**os.environ, "JUPYTER_DATA_DIR": str(place / "data"), "IPYTHONDIR": str(place / "ipython")}
        plain = outcomes(source, {**env, "IS_WARM": "False"}, sys.argv[1:])
        install = [BIN / "libcriu-py", "kernel", "install", "--name", "python3"]
        # In a directory of its own: tests install kernels of that name, and an environment's comes before the user's.
        env["JUPYTER_PATH"] = str(place / "warm")
        at = {**env, "JUPYTER_DATA_DIR": env["JUPYTER_PATH"]}
        subprocess.run([str(word) for word in install], cwd=place, env=at, check=True)
        warm = outcomes(source, {**env, "IS_WARM": "True"}, sys.argv[1:])
    finally:
        shutil.rmtree(place)
    differing = {name: (plain.get(name, "-"), warm.get(name, "-")) for name in {*plain, *warm}}
    differing = {name: both for name, both in differing.items() if both[0] != both[1]}
    print(f"{len(plain)} tests, {len(differing)} differ")
    for name, (before, now) in sorted(differing.items()):
        print(f"{name}: conventional {before}, warm {now}: {EXPLAINED.get(name, 'not explained')}")
    return 1 if differing.keys() - EXPLAINED.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
