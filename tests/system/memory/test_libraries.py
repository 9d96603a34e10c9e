"""Copies whose small libraries are mapped from `memory.img`, code included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import CRIU_MODES, MODES, Mode
from tests.system.csrc.test_launcher import Copies, read_line
from tests.system.mapped_programs import memory_of, record_of, take_mapped
from tests.system.standby import TIMEOUT, descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.accounts import Account
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

PY_SPY = Path(sysconfig.get_path("scripts")) / "py-spy"
PROGRAM = """
    import _bz2, _ctypes, bz2, ctypes, decimal, sys
    from libcriu_py import checkpoint
    data = [bytes(range(256)) * 8000]
    packed = bz2.compress(data[0])
    with checkpoint():
        pass
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda number: number + 1)
    right = bz2.decompress(packed) == data[0] and compare(41) == 42
    right = right and str(decimal.Decimal(2).sqrt()).startswith("1.414213562")
    lines = [line.split(None, 5) for line in open("/proc/self/maps")]
    code = [line[5].strip() for line in lines if "x" in line[1] and len(line) > 5]
    print(right, any(_bz2.__file__ == path for path in code), any(path.endswith("memory.img") for path in code))
"""


@pytest.fixture(scope="module", params=CRIU_MODES)
def taken(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[SelfDump]:
    """Yield one snapshot in each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield take_mapped(mode, directory, PROGRAM)
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def mode(mode_named: Callable[[str], Mode]) -> Mode:
    """Return the first mode, of whoever runs the tests."""
    return mode_named(MODES[0])


@pytest.fixture
def without_execution(mode: Mode) -> Iterator[Path]:
    """Mount a file system from which nothing may be executed."""
    directory = mode.account.directory()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec,mode=1777", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)
    directory.rmdir()


def test_code_from_the_snapshot(taken: SelfDump) -> None:
    """Extension modules, callbacks that they make, and their data go on, and their code is in memory.img."""
    memory = memory_of(taken)
    assert record_of(taken).maps_code
    assert memory["owners"]["library file"] > 1 << 20
    done = taken.run()
    assert done.stdout == "True False True\n", done.stderr


def test_large_libraries_stay_where_they_are(taken: SelfDump) -> None:
    """All but the program, what is looked for by its name, and libraries of more than 8 MB is in memory.img."""
    code = """
    import os, sys
    from libcriu_py.memory import libraries
    from libcriu_py.memory.memory import MM_EXE_FILE, Memory, processes
    images = os.path.join(sys.argv[1], "images")
    known = libraries.files(images)
    for pid in processes(images):
        with Memory(images, pid) as memory:
            left = {known[number].path for number in libraries.executed(memory) - {memory.mm.number(MM_EXE_FILE)}}
    left = {path for path in left if os.stat(path).st_size < libraries.MAX_WHOLE}
    print(sorted({os.path.basename(path).split(".")[0] for path in left} - {"libcrypto", "libpython3"}))
    """
    assert taken.call(code).stdout in {"['memory']\n", "[]\n"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace what is not its child")
def test_a_profiler_finds_python(mode: Mode, directory_of: Directories) -> None:
    """py-spy, which looks for Python's library among what is mapped, sees the program in a copy."""
    code = """
    import sys
    from libcriu_py import checkpoint

    def wait():
        print("ready", flush=True)
        sys.stdin.read()

    with checkpoint():
        pass
    wait()
    """
    made = take_mapped(mode, directory_of(mode.account), code)
    with Copies(mode, made.path).start() as copy:
        assert read_line(copy) == "ready"
        (pid,) = [pid for pid in descendants(copy.pid) if "memory.img" in Path(f"/proc/{pid}/maps").read_text()]
        shown = subprocess.run([PY_SPY, "dump", "--pid", str(pid)], check=False, capture_output=True, text=True)
        copy.communicate(timeout=TIMEOUT)
    assert "wait (" in shown.stdout, shown.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_where_nothing_may_be_executed(mode: Mode, without_execution: Path) -> None:
    """A snapshot that is made on a file system mounted noexec leaves code where it is."""
    made = take_mapped(mode, without_execution, PROGRAM)
    memory = memory_of(made)
    assert memory["kind"] == "map"
    assert not record_of(made).maps_code
    assert made.run().stdout == "True True False\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_moved_to_where_nothing_may_be_executed(mode: Mode, without_execution: Path) -> None:
    """A snapshot with code that was moved to one is refused in a sentence, before anything is started."""
    directory = mode.account.directory()
    made = take_mapped(mode, directory, PROGRAM)
    moved = made._replace(path=without_execution / "moved")
    subprocess.run(["cp", "-a", made.path, moved.path], check=True)
    done = moved.run()
    shutil.rmtree(directory)
    assert done.returncode == 126, done.stdout
    assert "is on a file system that is mounted noexec, from which the code of libraries cannot be" in done.stderr
    assert "move it to another one" in done.stderr
