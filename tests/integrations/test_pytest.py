"""pytest by `--warm` and by a shim, in a project that imports pandas."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.cli_command import write

BIN = Path(sys.executable).parent
SETTLED = Path(__file__).parents[1] / "system" / "auto" / "settled.py"
PATIENCE = 100
FILES = {
    "pyproject.toml": '[tool.pytest.ini_options]\npythonpath = ["."]\n',
    "shop.py": "import pandas\n\ndef total(rows):\n    return pandas.DataFrame(rows).amount.sum()\n",
    "conftest.py": "import sys\nWARM = 'pandas' in sys.modules\nimport pandas\n"
    "def pytest_report_header():\n    return f'warm {WARM}'\n",
    "test_shop.py": "import os\nfrom shop import total\nimport conftest\n\n"
    "def test_total():\n    assert total([{'amount': 1}, {'amount': 2}]) == 3\n\n"
    "def test_place():\n    worker = os.environ.get('PYTEST_XDIST_WORKER', 'main')\n"
    "    with open('seen', 'a') as file:\n        file.write(f'{worker} {conftest.WARM}\\n')\n",
}
FAILING = "\ndef test_wrong():\n    first, second = [1, 2], [1, 3]\n    assert first == second\n"


class Project:
    """A project, and a cache of snapshots."""

    def __init__(self, place: Path) -> None:
        self.place = place / "project"
        self.place.mkdir()
        for name, text in FILES.items():
            write(self.place / name, text)
        self.cache = place / "cache"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIBCRIU_PY_", "PYTEST_"))}
        self.env = {**kept, "LIBCRIU_PY_CACHE": str(self.cache)}
        command: list[str | Path] = [BIN / "libcriu-py", "shim", BIN / "pytest", "--into", place / "shims"]
        subprocess.run(command, env=self.env, check=True, capture_output=True)
        self.shim = [str(place / "shims" / "pytest")]

    def run(self, command: list[str], *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command, and what goes on in the background then."""
        return subprocess.run(
            [sys.executable, "-I", SETTLED, *command, *words],
            cwd=self.place,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def warm(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run pytest by its shim, which has to be a copy."""
        done = self.run(self.shim, *words)
        assert "warm True" in done.stdout, done
        return done

    def modules(self) -> list[str]:
        """Return what the one snapshot has."""
        (snapshot,) = self.cache.glob("**/snap")
        names: list[str] = json.loads((snapshot.parent / "state.json").read_text())["modules"]
        return names


PLAIN = [str(BIN / "pytest")]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project of which there is a snapshot."""
    made = Project(tmp_path)
    assert "warm False" in made.run(made.shim).stdout
    return made


def _comparable(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    text = re.sub(r"in \d+\.\d+s|warm \w+|\d+\.\d+s (call|setup|teardown)", "-", done.stdout)
    return done.returncode, re.sub(r"=+", "=", text), done.stderr


def test_one_snapshot_serves_all(project: Project) -> None:
    """The shim, --warm and python -m pytest --warm start from it, and it has nothing of the project."""
    ways = [
        [*PLAIN, "--warm"],
        [sys.executable, "-m", "pytest", "--warm"],
        [str(BIN / "python3"), "-m", "pytest", "--warm"],
    ]
    for way in [project.shim, *ways]:
        assert "warm True" in project.run(way).stdout
    assert "warm False" in project.run(PLAIN).stdout
    assert "warm True" in project.run(PLAIN, PYTEST_ADDOPTS="--warm").stdout
    modules = project.modules()
    assert {"pandas", "pytest", "xdist.plugin"} <= {*modules}
    assert not {"shop", "conftest", "test_shop"} & {*modules}


def test_edits_are_seen_and_cost_nothing(project: Project) -> None:
    """A change of tests, conftest or modules of the project counts at once, in a copy."""
    assert project.warm().returncode == 0
    write(project.place / "test_shop.py", FILES["test_shop.py"].replace("== 3", "== 4"))
    assert "assert np.int64(3) == 4" in project.warm().stdout
    write(project.place / "shop.py", FILES["shop.py"].replace("sum()", "sum() + 1"))
    assert project.warm().returncode == 0
    write(project.place / "conftest.py", FILES["conftest.py"] + "raise RuntimeError('of conftest')\n")
    done = project.run(project.shim)
    assert (done.returncode, "of conftest" in done.stderr) == (4, True)


LINES = [
    [],
    ["-q"],
    ["-v", "-k", "total", "--durations=1"],
    ["-k", "nothing"],
    ["--collect-only", "-q"],
    ["--bogus"],
    ["-x", "-W", "error", "-p", "no:cacheprovider"],
    ["--assert=plain"],
    ["--markers"],
    ["--cov=shop", "--cov-report=term-missing", "--cov-branch"],
    ["--junitxml=out.xml", "-o", "junit_suite_name=x"],
    ["nowhere.py"],
]


def test_same_as_plain(project: Project) -> None:
    """Output and exit status are those of a plain start, whatever the options; nothing warns of what was imported."""
    write(project.place / "test_shop.py", FILES["test_shop.py"] + FAILING)
    for words in LINES:
        plain, warm = project.run(PLAIN, *words), project.run(project.shim, *words)
        assert _comparable(warm) == _comparable(plain), words


def test_warnings_of_packages(tmp_path: Path) -> None:
    """A package that warns when it is imported does so in each run, and filters that it sets then end again."""
    project, base = Project(tmp_path), tmp_path / "base"
    packages = base / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    write(packages / "old_package.py", "import warnings\nwarnings.warn('is old', DeprecationWarning, stacklevel=2)\n")
    write(packages / "quiet_package.py", "import warnings\nwarnings.filterwarnings('ignore', message='loud')\n")
    write(project.place / "test_old.py", "import old_package\n\ndef test_old():\n    pass\n")
    text = "import quiet_package, warnings\n\ndef test_quiet():\n    warnings.warn('loud')\n"
    write(project.place / "test_quiet.py", text)
    project.env |= {"PYTHONUSERBASE": str(base), "PYTHONPATH": str(packages)}
    for _ in range(3):
        project.run(project.shim)
    assert "quiet_package" in project.modules()
    assert "old_package" not in project.modules()
    for words in ([], ["-W", "error"], ["-W", "error::DeprecationWarning"]):
        assert _comparable(project.warm(*words)) == _comparable(project.run(PLAIN, *words))


@pytest.mark.parametrize("words", [["--cov=measured"], ["--cov=measured", "-n1"], ["--cov"]])
def test_coverage_of_installed_packages(tmp_path: Path, words: list[str]) -> None:
    """What a package runs when it is imported is measured, also where a snapshot has it."""
    project, base = Project(tmp_path), tmp_path / "base"
    packages = base / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    write(packages / "measured.py", "import os\n\ndef used():\n    return 1\n\ndef unused():\n    return 2\n")
    write(project.place / "test_measured.py", "import measured\n\ndef test_it():\n    assert measured.used()\n")
    if words == ["--cov"]:
        write(project.place / ".coveragerc", "[run]\nsource = measured\n")
    project.env |= {"PYTHONUSERBASE": str(base), "PYTHONPATH": str(packages)}
    for _ in range(3):
        project.run(project.shim)
    assert "measured" in project.modules()
    words += ["-q", "--cov-report=term-missing"]
    assert _comparable(project.run(project.shim, *words)) == _comparable(project.run(PLAIN, *words))
    assert "warm True" in project.run(project.shim, "-v").stdout


def test_variables_are_those_of_the_program(project: Project) -> None:
    """What the snapshot needs sets none in copies."""
    text = "import os\n\ndef test_variables():\n    assert 'KMP_DUPLICATE_LIB_OK' not in os.environ\n"
    write(project.place / "test_variables.py", text)
    assert project.warm().returncode == 0


def test_pdb(project: Project) -> None:
    """The debugger of -x --pdb reads from the terminal, and sees the test."""
    write(project.place / "test_shop.py", FILES["test_shop.py"] + FAILING)
    for way in (project.shim, [*PLAIN, "--warm"]):
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(project.place)
            os.execvpe(way[0], [*way, "-x", "--pdb"], project.env)
        text = b""
        while b"(Pdb)" not in text:
            text += os.read(terminal, 4096)
        os.write(terminal, b"p 'second', second\n")
        while b"('second', [1, 3])" not in text:
            text += os.read(terminal, 4096)
        os.write(terminal, b"q\n")
        while chunk := _read(terminal):
            text += chunk
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert b"warm True" in text
        assert os.waitstatus_to_exitcode(status) == 2


def _read(terminal: int) -> bytes:
    """Read what comes; nothing at the end, which is an error of a terminal."""
    try:
        return os.read(terminal, 4096)
    except OSError:
        return b""


@pytest.mark.parametrize("words", [["--warm"], []], ids=["warm", "shim"])
def test_workers_of_xdist_are_warm(tmp_path: Path, words: list[str]) -> None:
    """Workers note what they import, and are copies then."""
    project = Project(tmp_path)
    command = PLAIN if words else project.shim
    seen = project.place / "seen"
    for expected in ("False", "True"):
        seen.unlink(missing_ok=True)
        done = project.run(command, *words, "-n", "2", "--dist", "each")
        assert done.returncode == 0, done
        assert sorted(seen.read_text().splitlines()) == [f"gw0 {expected}", f"gw1 {expected}"]


def test_stale_is_made_anew(project: Project) -> None:
    """What differs for the interpreter, or is imported more, is in the next snapshot."""
    other = {"PYTHONHASHSEED": "5"}
    first, second = (project.run(project.shim, **other).stdout for _ in range(2))
    assert ("warm False" in first, "warm True" in second) == (True, True)
    assert "wave" not in project.modules()
    write(project.place / "conftest.py", FILES["conftest.py"] + "import wave\n")
    assert "warm True" in project.run(project.shim, **other).stdout
    assert "wave" in project.modules()


def test_program_of_its_own_is_not_started_anew(project: Project) -> None:
    """pytest.main in another program ignores --warm."""
    program = write(
        project.place / "run.py", "import pytest, sys\nprint('begins')\nsys.exit(pytest.main(['--warm']))\n"
    )
    done = project.run([sys.executable, str(program)])
    assert (done.stdout.count("begins"), "warm False" in done.stdout, done.returncode) == (1, True, 0)
