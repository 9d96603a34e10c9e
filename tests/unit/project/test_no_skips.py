"""The test run itself: in CI a skip is a failure, and system tests must have run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Other plug-ins would only take time.
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).resolve().parents[3]), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run_pytest(
    directory: Path, code: str, *arguments: str, name: str = "test_it.py"
) -> subprocess.CompletedProcess[str]:
    """Run one test file under this tree's conftest.py."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code, encoding="utf-8")
    env = {key: value for key, value in os.environ.items() if key != "CI"} | ENVIRONMENT
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", os.devnull, "--rootdir", str(directory)]
    return subprocess.run([*argv, *arguments], check=False, capture_output=True, text=True, env=env, cwd=directory)


def test_skip_is_a_failure(tmp_path: Path) -> None:
    """Every kind of skip fails under --no-skips, its reason told, and passes without."""
    kinds = {
        "call": "import pytest\ndef test_it():\n    pytest.skip('reason: call')\n",
        "mark": "import pytest\n@pytest.mark.skip(reason='reason: mark')\ndef test_it():\n    pass\n",
        "module": "import pytest\npytest.skip('reason: module', allow_module_level=True)\n",
    }
    for kind, code in kinds.items():
        (tmp_path / f"test_{kind}.py").write_text(code, encoding="utf-8")
    passing = "def test_it():\n    pass\n"
    done = run_pytest(tmp_path, passing)
    assert (done.returncode, "1 passed, 3 skipped" in done.stdout) == (0, True), done.stdout
    done = run_pytest(tmp_path, passing, "--no-skips", "--continue-on-collection-errors")
    assert (done.returncode, "1 failed, 1 passed, 2 errors" in done.stdout) == (1, True), done.stdout
    assert all(f"reason: {kind}" in done.stdout for kind in kinds)


def test_expected_failure_is_no_skip(tmp_path: Path) -> None:
    """A test marked xfail may fail."""
    code = "import pytest\n@pytest.mark.xfail\ndef test_it():\n    assert False\n"
    done = run_pytest(tmp_path, code, "--no-skips")
    assert (done.returncode, "1 xfailed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize(("code", "status"), [("def test_it():\n    pass\n", 0), ("def helper():\n    pass\n", 1)])
def test_system_tests_must_run(tmp_path: Path, code: str, status: int) -> None:
    """A run over tests/system in which no test runs has failed."""
    done = run_pytest(tmp_path, code, "--no-skips", "tests/system", name="tests/system/test_it.py")
    assert done.returncode == status, done.stdout + done.stderr
    assert ("no system test ran" in done.stdout) == bool(status)


def test_failure_shows_the_logs(tmp_path: Path) -> None:
    """What CRIU logged below the test's directory is printed with the failure."""
    code = "def test_it(tmp_path):\n    (tmp_path / 'dump.log').write_text('reason ' * 2)\n    assert False\n"
    shown = run_pytest(tmp_path, code).stdout
    assert "dump.log" in shown
    assert "reason reason" in shown


def test_forked_test_leaves_the_fixtures_of_others(tmp_path: Path) -> None:
    """What another test has set up is torn down once, after its last user; a forked test's own, in its child."""
    code = """
import os, pytest
from pathlib import Path
@pytest.fixture(scope="session")
def first():
    yield Path("first").touch()
    os.unlink("first")
@pytest.fixture(scope="module")
def second():
    yield Path("second").touch()
    os.unlink("second")
def test_before(first):
    pass
@pytest.mark.forked
def test_forked(second):
    os.umask(0)
def test_after(first):
    assert Path("first").exists() and not Path("second").exists() and os.umask(0o22)
"""
    done = run_pytest(tmp_path, code, "-p", "pytest_forked")
    assert "3 passed" in done.stdout, done.stdout
    assert not (tmp_path / "first").exists()


def test_inherited_descriptors_are_closed(tmp_path: Path) -> None:
    """What the starting program left open is not in the way of a test that dumps itself."""
    code = "import os\ndef test_it():\n    assert not os.path.exists('/proc/self/fd/99')\n"
    os.dup2(0, 99)
    try:
        argv = f"exec {sys.executable} -m pytest -q -p tests.conftest -c /dev/null test_it.py 99<&0"
        (tmp_path / "test_it.py").write_text(code, encoding="utf-8")
        env = {**os.environ, **ENVIRONMENT}
        done = subprocess.run(["bash", "-c", argv], check=False, capture_output=True, text=True, cwd=tmp_path, env=env)
    finally:
        os.close(99)
    assert done.returncode == 0, done.stdout
