"""
The test run itself: in CI a skip is a failure, and system tests must have run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_pytest(
    directory: Path, code: str, *arguments: str, name: str = "test_it.py"
) -> subprocess.CompletedProcess[str]:
    """
    Run one test file under this tree's conftest.py.
    """
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key != "CI"} | {"PYTHONPATH": str(ROOT)}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(directory)]
    return subprocess.run([*argv, *arguments], check=False, capture_output=True, text=True, env=env, cwd=directory)


@pytest.mark.parametrize(
    "code",
    [
        "import pytest\ndef test_it():\n    pytest.skip('no reason at all')\n",
        "import pytest\n@pytest.mark.skip(reason='no reason at all')\ndef test_it():\n    pass\n",
        "import pytest\npytest.skip('no reason at all', allow_module_level=True)\n",
    ],
    ids=["call", "mark", "module"],
)
def test_skip_is_a_failure(tmp_path: Path, code: str) -> None:
    """
    Every kind of skip fails under --no-skips, its reason told, and passes without.
    """
    assert run_pytest(tmp_path, code).returncode in {0, pytest.ExitCode.NO_TESTS_COLLECTED}
    done = run_pytest(tmp_path, code, "--no-skips")
    assert done.returncode not in {0, pytest.ExitCode.NO_TESTS_COLLECTED}
    assert "no reason at all" in done.stdout


def test_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """
    A test marked xfail may fail.
    """
    code = "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\n"
    done = run_pytest(tmp_path, code, "--no-skips")
    assert (done.returncode, "1 xfailed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize(("code", "status"), [("def test_it():\n    pass\n", 0), ("def helper():\n    pass\n", 1)])
def test_system_tests_must_run(tmp_path: Path, code: str, status: int) -> None:
    """
    A run over tests/system in which no test runs has failed.
    """
    done = run_pytest(tmp_path, code, "--no-skips", "tests/system", name="tests/system/test_it.py")
    assert done.returncode == status, done.stdout + done.stderr
    assert ("no system test ran" in done.stdout) == bool(status)


def test_failure_shows_the_logs(tmp_path: Path) -> None:
    """
    What CRIU logged below the test's directory is printed with the failure.
    """
    code = "def test_it(tmp_path):\n    (tmp_path / 'dump.log').write_text('reason ' * 2)\n    assert False\n"
    shown = run_pytest(tmp_path, code).stdout
    assert "dump.log" in shown
    assert "reason reason" in shown


def test_inherited_descriptors_are_closed(tmp_path: Path) -> None:
    """
    What the starting program left open is not in the way of a test that dumps itself.
    """
    code = "import os\ndef test_it():\n    assert not os.path.exists('/proc/self/fd/99')\n"
    os.dup2(0, 99)
    try:
        argv = f"exec {sys.executable} -m pytest -q -p tests.conftest -c /dev/null test_it.py 99<&0"
        (tmp_path / "test_it.py").write_text(code, encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(["bash", "-c", argv], check=False, capture_output=True, text=True, cwd=tmp_path, env=env)
    finally:
        os.close(99)
    assert done.returncode == 0, done.stdout
