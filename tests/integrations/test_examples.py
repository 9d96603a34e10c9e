"""The examples run as they stand, in a copy of their directory, by the commands of their READMEs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integrations.serving import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
TIMEOUT = 110


def run(where: Path, script: str) -> str:
    """Run lines of shell in an example's directory, with this environment's commands, and return what they print."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "HOME": str(where.parent), "XDG_CACHE_HOME": str(where.parent / "cache")}
    done = subprocess.run(
        ["sh", "-euc", script], cwd=where, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a copy of an example's directory."""
    return Path(shutil.copytree(EXAMPLES / request.param, tmp_path / request.param))


def of(name: str) -> pytest.MarkDecorator:
    """Return a mark for a test that gets a copy of an example's directory."""
    return pytest.mark.parametrize("example", [name], indirect=True)


@of("libraries")
def test_libraries(example: Path) -> None:
    """A copy has a connection of its own, and prints what the program prints."""
    run(example, "libcriu-py snapshot -o snap --preload clients main.py")
    expected = "WHAT A COPY ASKS\n"
    assert run(example, "python main.py") == run(example, "libcriu-py run --no-fallback snap") == expected
    assert run(example, "echo 'print(clients.default.connections)' >> main.py; libcriu-py run snap") == expected + "2\n"


@of("pools")
@pytest.mark.parametrize("script", ["executor.py", "of_joblib.py"])
def test_pools(example: Path, script: str) -> None:
    """Warm workers give the results."""
    assert "[0.0, 0.0, 1.0, 3.0, 6.0, 10.0, 15.0, 21.0]" in run(example, f"python {script}")


@of("pytest")
def test_pytest(example: Path) -> None:
    """It passes, by --warm and by the shim."""
    summary = run(example, "pytest -q --warm").splitlines()[-1].partition(" in ")[0]
    shim = run(example, "libcriu-py shim pytest --into warm >/dev/null; warm/pytest -q")
    assert summary.endswith(" passed")
    assert shim.splitlines()[-1].startswith(f"{summary} in ")


@of("servers")
def test_servers(example: Path) -> None:
    """The copy answers."""
    assert "144" in run(example, f"./run.sh {free_port()}")


@of("workers")
def test_workers(example: Path) -> None:
    """Both workers do their tasks."""
    assert {"Celery: 45.0", "RQ: 3.0"} <= set(run(example, "./run.sh").splitlines())


@of("jupyter")
def test_jupyter(example: Path) -> None:
    """Both kernels run the first cell, and the warm one can be removed."""
    run(example, "libcriu-py kernel install --name warm --preload pandas")
    assert len(run(example, "python first_cell.py").splitlines()) >= 2
    run(example, "libcriu-py kernel remove --name warm")
