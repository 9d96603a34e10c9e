"""The fast exit leaves behind what the normal exit does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import MODES
from tests.system.selfdump import SelfDump, start, write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

PROGRAM = """
import atexit, gzip, io, logging, multiprocessing, os, sys, tempfile, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor

def main():
    out = sys.argv[1]
    unclosed = open(f"{out}/unclosed", "w")
    unclosed.write("text that is still in the buffer")
    packed = gzip.open(f"{out}/packed.gz", "wt")
    packed.write("compressed " * 1000)
    binary = open(f"{out}/binary", "wb")
    binary.write(b"bytes")
    kept = [unclosed, packed, binary]
    main.kept = kept
    temporary = tempfile.TemporaryDirectory(dir=out)
    main.temporary = temporary
    logging.basicConfig(handlers=[logging.handlers.MemoryHandler(1000, target=logging.FileHandler(f"{out}/log"))])
    logging.warning("logged at the last moment")
    atexit.register(lambda: open(f"{out}/atexit", "w").write("ran"))
    class Thing: pass
    main.thing = Thing()
    weakref.finalize(main.thing, lambda: open(f"{out}/finalize", "w").write("ran"))
    threading.Thread(target=lambda: (event.wait(), open(f"{out}/thread", "w").write("joined"))).start()
    executor = ThreadPoolExecutor(1)
    executor.submit(lambda: open(f"{out}/future", "w").write("done"))
    process = multiprocessing.get_context("fork").Process(target=lambda: open(f"{out}/child", "w").write("waited for"))
    process.start()
    sys.stdout.write("stdout without newline")
    event.set()
    how = sys.argv[2]
    if how == "return":
        return
    if how == "message":
        sys.exit("a message")
    if how == "exception":
        raise KeyError("uncaught")
    sys.exit(int(how))

import logging.handlers
event = threading.Event()
"""
NORMAL = PROGRAM + "main()\n"
FAST = PROGRAM + "from libcriu_py.exit import run_and_exit_fast\nrun_and_exit_fast(main)\n"


def outcome(code: str, directory: Path, how: str) -> tuple[int, str, str, dict[str, bytes]]:
    """Run a program and give its status, its output, the last line of stderr, and the files it leaves."""
    directory.mkdir()
    argv = [sys.executable, "-W", "ignore", "-c", code, str(directory), how]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    if "packed.gz" in files:
        files["packed.gz"] = subprocess.run(
            ["gzip", "-dc", directory / "packed.gz"], capture_output=True, check=True
        ).stdout
    return done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2], files


@pytest.mark.parametrize("how", ["return", "0", "7", "-1", "256", "message", "exception"])
def test_same_as_the_normal_exit(how: str, tmp_path: Path) -> None:
    """Status, output, open and compressed files, logs, threads, children and temporary files come out the same."""
    normal, fast = outcome(NORMAL, tmp_path / "normal", how), outcome(FAST, tmp_path / "fast", how)
    assert fast == normal
    written = {"unclosed", "packed.gz", "binary", "log", "atexit", "finalize", "thread", "future", "child"}
    assert set(fast[3]) == written


@pytest.fixture(scope="module", params=MODES)
def fast(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[SelfDump]:
    """Yield a snapshot made with `snapshot --exit fast` in each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    script = write_program(mode, directory, NORMAL)
    made = start(mode, script, directory / "snap", options=["--exit", "fast"], own=False)
    assert made.returncode == 0, made.stderr
    yield SelfDump(mode, directory / "snap", script)
    shutil.rmtree(directory)


@pytest.mark.parametrize("how", ["return", "7", "message", "exception"])
def test_copies_of_a_snapshot_made_with_exit_fast(how: str, fast: SelfDump) -> None:
    """`snapshot --exit fast` has its copies end fast, with the same files, output and status."""
    mode = fast.mode
    results: list[tuple[int, str, str, set[str]]] = []
    for command in ([fast.script], ["-m", "libcriu_py", "run", "--no-fallback", fast.path, "--"]):
        out = fast.path.with_name(f"{how}-{len(results)}")
        out.mkdir()
        mode.account.give(out)
        done = mode.run([mode.account.python, *command, out, how])
        files = {path.name for path in out.iterdir()}
        results.append((done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2], files))
    assert results[0] == results[1]


CHECKPOINTED = PROGRAM.replace(
    "event = threading.Event()",
    "event = threading.Event()\nfrom libcriu_py import checkpoint\nwith checkpoint(exit='fast'):\n    pass\n",
)


LAST = """
class Last:
    def __del__(self, open=open, path=sys.argv[1]):
        open(f"{path}/deleted", "w").close()
last = Last()
"""


def test_copies_of_a_program_that_checkpoints_itself(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """With `checkpoint(exit="fast")` files, output and status are those of a normal end, which also runs `__del__`."""
    directory = directory_of(mode.account)
    tail = LAST + "main()\n"
    made = start(mode, write_program(mode, directory, CHECKPOINTED + tail), directory / "snap")
    assert made.returncode == 0, made.stderr
    conventional = directory / "conventional.py"
    conventional.write_text(NORMAL.replace("\nmain()\n", "\n" + tail))
    mode.account.give(conventional)
    for how in ("return", "7", "message", "exception"):
        results: list[tuple[int, str, str, set[str]]] = []
        for command in ([conventional], ["-m", "libcriu_py", "run", "--no-fallback", directory / "snap", "--"]):
            out = directory / f"out-{how}-{len(results)}"
            out.mkdir()
            mode.account.give(out)
            done = mode.run([mode.account.python, *command, out, how])
            files = {path.name for path in out.iterdir()}
            results.append((done.returncode, done.stdout, done.stderr.strip().rpartition("\n")[2], files))
        normal, fast = results
        assert normal[3] - fast[3] == {"deleted"}
        assert normal[:3] == fast[:3]
        assert fast[3] < normal[3]


def test_lazy_proxies_are_left_alone() -> None:
    """An object whose `__class__` cannot be read yet, as Django's unconfigured settings, is no obstacle."""
    code = """
from libcriu_py.exit import freeze, run_and_exit_fast
class Lazy:
    @property
    def __class__(self):
        raise RuntimeError("loaded")
lazy = Lazy()
freeze()
later = Lazy()
run_and_exit_fast(lambda: print("done"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_what_only_gives_memory_back_is_left_out() -> None:
    """Finalizers of torch's operators, told by their function, do not run at a fast end; other finalizers do."""
    code = """
import sys, types, weakref
from libcriu_py import exit_fast
library = types.ModuleType("torch.library")
exec("def _del_library(): print('torn down')", library.__dict__)
sys.modules["torch.library"] = library
class Thing: pass
thing = Thing()
weakref.finalize(thing, library._del_library)
weakref.finalize(thing, print, "finalized")
exit_fast()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finalized\n", "")


def test_stdout_that_cannot_be_written() -> None:
    """Output that is lost is told by status 120, as Python does."""
    code = "import sys; from libcriu_py import exit_fast; sys.stdout.write('x'); exit_fast()"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w", encoding="ascii") as full:
        argv = [sys.executable, "-c", code]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr


def test_streams_of_c_are_flushed() -> None:
    """What a C library has printed is not lost."""
    code = "import ctypes; ctypes.CDLL(None).printf(b'by C'); from libcriu_py import exit_fast; exit_fast(3)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "by C")


def test_coverage_data_are_written(tmp_path: Path) -> None:
    """A trace tool that saves its data at exit, as coverage does, saves them."""
    code = (
        "import atexit, sys, pickle; lines = []\n"
        "sys.settrace(lambda frame, event, arg: lines.append(frame.f_lineno))\n"
        "atexit.register(lambda: (sys.settrace(None), pickle.dump(lines, open('data', 'wb'))))\n"
        "def work(): pass\nwork()\nfrom libcriu_py import exit_fast\nexit_fast()\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env={**os.environ})
    assert (tmp_path / "data").stat().st_size > 10
