"""A fast exit does what a program leaves to its end: files, children, what is tracked, sub-interpreters."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.system.exit_program import KINDS
from tests.system.selfdump import start

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

PROGRAM = Path(__file__).parents[1].joinpath("exit_program.py")
ROOT = Path(__file__).resolve().parents[3]
RANDOM = re.compile(r"(?<=[-_])\w{8}\b|/?psm_\w+|/mp-\w+|\b\d+\b")
FAST = ("function", "interpreter")


class End(NamedTuple):
    """What is there when a program has ended."""

    status: int
    stdout: str
    stderr: str
    files: dict[str, bytes | None]
    running: bool
    shared: bool


def end_of(done: subprocess.CompletedProcess[str], out: Path) -> End:
    """Look at what a program has left, of which names that are drawn by lot are made the same."""
    pid, name = (out / "daemon", out / "shared")
    running = pid.exists() and Path("/proc", pid.read_text(encoding="ascii")).exists()
    shared = name.exists() and Path("/dev/shm", name.read_text(encoding="ascii")).exists()
    pid.unlink(missing_ok=True)
    name.unlink(missing_ok=True)
    files = {
        RANDOM.sub("X", path.name): path.read_bytes() if path.is_file() else None for path in sorted(out.iterdir())
    }
    # Python does not always come to close a connection; what was not committed is undone by whoever opens it next.
    files.pop("sqlite-journal", None)
    for other in {"tar", "zip", "shelf.db"} & files.keys():
        files[other] = str(len(files[other] or b"")).encode()  # there are times in them, or bytes by chance
    return End(done.returncode, done.stdout, RANDOM.sub("X", done.stderr), files, running, shared)


def run(how: str, kind: str, directory: Path) -> End:
    """Run the program."""
    out = directory / how
    out.mkdir()
    argv = [sys.executable, str(PROGRAM), how, kind, str(out)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, cwd=directory, env=env, capture_output=True, text=True, check=False, timeout=60)
    return end_of(done, out)


@pytest.mark.parametrize("kind", KINDS)
def test_same_as_the_normal_exit(kind: str, tmp_path: Path) -> None:
    """Status, output and files are the same, nothing runs on, and no shared memory is left."""
    normal, *fast = (run(how, kind, tmp_path) for how in ("normal", *FAST))
    assert normal.status == (3 if kind == "signalled" else 0), normal.stderr
    assert not normal.running
    assert not normal.shared
    assert [end._asdict() for end in fast] == [normal._asdict()] * 2


def test_copies_of_a_program_that_checkpoints_itself(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """The same is so for all of it at once in a restored copy of a program with `checkpoint(exit="fast")`."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    shutil.copyfile(PROGRAM, script)
    mode.account.give(script)
    made = start(mode, script, directory / "snap", env={"CHECKPOINT": "1"})
    assert made.returncode == 0, made.stderr
    ends: list[End] = []
    for command in ([script], ["-m", "libcriu_py", "run", "--no-fallback", directory / "snap", "--"]):
        out = directory / f"out-{len(ends)}"
        out.mkdir()
        mode.account.give(out)
        done = mode.run([mode.account.python, *command, "normal", "all", out])
        ends.append(end_of(done, out))
    assert ends[0].status == 0, ends[0].stderr
    normal, fast = ends
    # Whether the daemon still runs is not to be told by its number in another namespace, but by the check for leaks.
    assert fast._replace(running=False) == normal._replace(running=False)


COVERED = """
import coverage, multiprocessing, os, signal, sys

def work(number):
    return number + 1

def child():
    return work(1)

def main():
    if "process" in sys.argv:
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    if "signal" in sys.argv:
        os.kill(os.getpid(), signal.SIGTERM)
    print("done")

if __name__ == "__main__":
    sys.path.insert(0, os.environ["ROOT"])
    coverage.process_startup()  # as pytest-cov and coverage have the processes do that they start
    how = sys.argv[1]
    if how == "function":
        from libcriu_py.exit import run_and_exit_fast
        run_and_exit_fast(main)
    elif how == "interpreter":
        from libcriu_py.exit import end_fast_at_exit
        end_fast_at_exit()
        main()
    else:
        main()
"""
SETTINGS = "[run]\nparallel = true\nconcurrency = multiprocessing\nsigterm = true\ninclude = */covered.py\n"


def covered(how: str, kind: str, directory: Path) -> tuple[int, int, set[int]]:
    """Run a program that measures its coverage; give status, number of data files, and the lines seen in functions."""
    from coverage import CoverageData

    place = directory / how
    place.mkdir()
    (place / "covered.py").write_text(COVERED, encoding="ascii")
    (place / ".coveragerc").write_text(SETTINGS, encoding="ascii")
    argv = [sys.executable, "covered.py", how, kind]
    env = {**os.environ, "ROOT": str(ROOT), "COVERAGE_PROCESS_START": str(place / ".coveragerc")}
    done = subprocess.run(argv, cwd=place, env=env, capture_output=True, check=False)
    lines: set[int] = set()
    files = sorted(place.glob(".coverage.*"))
    for path in files:
        data = CoverageData(str(path))
        data.read()
        for name in data.measured_files():
            lines.update(data.lines(name) or [])
        data.close()
    last = COVERED.splitlines().index('if __name__ == "__main__":')
    return done.returncode, len(files), {line for line in lines if line <= last}


@pytest.mark.parametrize(("kind", "status", "files"), [("alone", 0, 1), ("process", 0, 2), ("signal", -15, 1)])
def test_coverage_is_the_same(kind: str, status: int, files: int, tmp_path: Path) -> None:
    """coverage.py saves its data at exit, in children of multiprocessing, and when a signal ends the program."""
    normal, *fast = (covered(how, kind, tmp_path) for how in ("normal", *FAST))
    assert normal[:2] == (status, files)
    assert normal[2]
    assert fast == [normal, normal]


FINALIZERS = """
import sys

class Noisy:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("freed", self.name, helper())

def helper():
    return SUFFIX

def numbers():
    try:
        yield 1
    finally:
        print("closed")

SUFFIX = "by the program"
if "none" not in sys.argv:
    kept, pending, table = Noisy("global"), numbers(), {"x": Noisy("in a table")}
    next(pending)
    cycle = Noisy("cycle")
    cycle.itself = cycle
    del cycle
print("end")
"""


def test_finalizers_of_what_the_main_module_holds(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """They run, in the order of a normal exit, and find the module as it was."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    script.write_text(FINALIZERS, encoding="ascii")
    mode.account.give(script)
    command = [mode.account.python, "-m", "libcriu_py"]
    made = mode.run([*command, "snapshot", "-o", directory / "snap", "--exit", "fast", script])
    assert made.returncode == 0, made.stderr
    for words in ([], ["none"]):
        normal = mode.run([mode.account.python, script, *words])
        fast = mode.run([*command, "run", "--no-fallback", directory / "snap", *words])
        assert (fast.returncode, fast.stdout, fast.stderr) == (0, normal.stdout, "")
        assert ("freed global by the program" in fast.stdout) is not bool(words)
