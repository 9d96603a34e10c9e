"""Copies whose memory is mapped from a file: what they compute, and where they can be restored."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu.native import built_prefix
from tests.system.conftest import IN_PLACE, MODES, ONCE, Mode, by_criu
from tests.system.mapped_programs import memory_of, take_mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

PREFIXES = dict.fromkeys([built_prefix(), *os.environ.get("LIBCRIU_PY_TEST_PREFIXES", "").split(":")])
"""Where CRIU is installed: as for the tests of the binding."""

PANDAS = """
    import hashlib, sys
    import pandas as pd
    from libcriu_py import checkpoint
    frame = pd.DataFrame({"key": [i % 7 for i in range(200_000)], "value": range(200_000)})
    sums = frame.groupby("key").value.sum()
    blob = bytes(range(256)) * 100_000
    with checkpoint():
        pass
    assert frame.groupby("key").value.sum().equals(sums)
    frame["value"] += int(sys.argv[1])
    assert (frame.groupby("key").value.sum() - sums).sum() == 200_000 * int(sys.argv[1])
    assert blob == bytes(range(256)) * 100_000
    mapped = [line for line in open("/proc/self/maps") if line.rstrip().endswith("memory.img")]
    print(len(mapped) > 0, sys.argv[1])
"""

TREE = """
    import mmap, multiprocessing, os, signal, sys
    from libcriu_py import checkpoint
    size = 16 << 20
    private = bytearray(b"p" * size)
    shared = mmap.mmap(-1, 1 << 20)
    shared[:] = b"s" * len(shared)
    ours, theirs = [], []
    for number in range(3):
        (a, b), (c, d) = os.pipe(), os.pipe()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            private[number * 4096 : (number + 1) * 4096] = bytes([number]) * 4096
            os.write(d, b"+")
            while os.read(a, 1):
                right = private.count(bytes([number])) == 4096 and private.count(b"p") == size - 4096
                right = right and shared[number] == ord("x") and shared.find(b"s") == 3
                private += b"more" * 1_000_000
                right = right and private.endswith(b"more") and private.count(b"p") == size - 4096
                os.write(d, b"y" if right else b"n")
            os._exit(0)
        assert os.read(c, 1) == b"+"
        ours.append(b)
        theirs.append(c)
    with checkpoint():
        pass
    shared[:3] = b"xxx"
    assert private == b"p" * size
    for number in range(3):
        os.write(ours[number], b"?")
        print(os.read(theirs[number], 1).decode(), end="")
    for pid in [int(p) for p in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()]:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print(flush=True)
"""


@pytest.fixture(scope="module", params=ONCE)
def mapped(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[SelfDump]:
    """Yield one snapshot of the pandas program in each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield take_mapped(mode, directory, PANDAS)
    shutil.rmtree(directory)


@pytest.fixture
def linked(mapped: SelfDump) -> Iterator[SelfDump]:
    """Yield a copy of it of which files may be replaced; each is a second link to the file."""
    copied = mapped._replace(path=mapped.path.with_name("linked"))
    subprocess.run(["/bin/cp", "-al", mapped.path, copied.path], check=True)
    yield copied
    shutil.rmtree(copied.path)


def test_pandas_computes_the_same(mapped: SelfDump) -> None:
    """A pandas program whose memory is mapped goes on as if it had been copied, several times."""
    memory = memory_of(mapped)
    assert memory["kind"] == "map"
    assert memory["bytes"] > 20 * memory["copied"]
    assert memory["owners"]["library bss"] > 0
    for argument in ("1", "2", "3"):
        done = mapped.run(argument)
        assert done.stdout == f"True {argument}\n", done.stderr


@by_criu
def test_optimize_after_the_fact(mode: Mode, directory_of: Directories) -> None:
    """A snapshot with copied memory becomes one with mapped memory while copies of it run; twice is an error."""
    snapshot = take_mapped(mode, directory_of(mode.account), PANDAS, memory="copy")
    memory = memory_of(snapshot)
    assert (memory["kind"], memory["why"]) == ("copy", "as asked for")
    assert snapshot.run("4").stdout == "False 4\n"
    command = [mode.account.python, "-m", "libcriu_py", "optimize", snapshot.path]
    done = mode.run([*command, "--json"])
    assert done.returncode == 0, done.stderr
    mapped = json.loads(done.stdout)["memory"]
    assert mapped["mapped"] > mapped["copied"] > 0
    assert sum(mapped["owners"].values()) > 0
    shown = mode.run([mode.account.python, "-m", "libcriu_py", "inspect", snapshot.path])
    assert "memory is mapped: the owners of these areas" in shown.stdout
    assert snapshot.run("5").stdout == "True 5\n"
    done = mode.run(command)
    assert done.returncode == 1
    assert "mapped already" in done.stderr
    assert sorted(os.listdir(snapshot.path.parent)) == ["program.py", snapshot.path.name]


def test_moved_and_read_only(mode: Mode, directory_of: Directories) -> None:
    """memory.img is handed over, so a snapshot restores where it was moved or copied to, without write permission."""
    snapshot = take_mapped(mode, directory_of(mode.account), PANDAS)
    moved = snapshot._replace(path=snapshot.path.with_name("moved"))
    snapshot.path.rename(moved.path)
    assert moved.run("1").stdout == "True 1\n"
    copied = snapshot._replace(path=snapshot.path.with_name("copied"))
    subprocess.run(["/bin/cp", "-a", moved.path, copied.path], check=True)
    shutil.rmtree(moved.path)
    subprocess.run(["/bin/chmod", "-R", "a-w", copied.path], check=True)
    try:
        assert copied.run("2").stdout == "True 2\n"
    finally:
        subprocess.run(["/bin/chmod", "-R", "u+w", copied.path], check=True)


@pytest.mark.parametrize("harm", ["missing", "shorter"])
def test_another_memory_file_is_refused(linked: SelfDump, harm: str) -> None:
    """Without memory.img, or with one of another size, nothing is restored; criu itself would not notice."""
    assert linked.run("1").stdout == "True 1\n"
    file = linked.path / "memory.img"
    with file.open("rb") as opened:
        page = opened.read(4096)
    file.unlink()
    if harm == "shorter":
        file.write_bytes(page)
        linked.mode.account.give(file)
    done = linked.run("1")
    assert done.returncode in {125, 126}, done.stdout
    assert "memory.img" in done.stderr
    assert "make the snapshot anew" in done.stderr


@by_criu
def test_a_tree_of_processes(mode: Mode, directory_of: Directories) -> None:
    """Forked children keep their own pages, and share the parent's that they did not write to, and shared memory."""
    snapshot = take_mapped(mode, directory_of(mode.account), TREE)
    assert memory_of(snapshot)["kind"] == "map"
    size = (snapshot.path / "memory.img").stat().st_size
    assert size < 3 * (16 << 20), "equal pages of four processes are stored once"
    for _ in range(2):
        done = snapshot.run()
        assert done.stdout == "yyy\n", done.stderr


def test_a_copy_outlives_its_snapshot(mode: Mode, directory_of: Directories) -> None:
    """A copy that runs keeps its memory, used or not, when its snapshot is removed or replaced."""
    code = """
    import sys
    from libcriu_py import checkpoint
    data = bytes(range(256)) * (64 << 10)
    with checkpoint():
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    print(data == bytes(range(256)) * (64 << 10), flush=True)
    """
    snapshot = take_mapped(mode, directory_of(mode.account), code)
    done = snapshot.call(
        """
        import shutil, subprocess, sys
        from libcriu_py import restore
        with restore(sys.argv[1], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as copy:
            assert copy.stdout.readline() == b"ready\\n"
            shutil.rmtree(sys.argv[1])
            out, _ = copy.communicate(b"go on\\n", timeout=30)
        print(out.decode(), copy.returncode)
        """
    )
    assert done.stdout == "True\n 0\n"


@pytest.mark.parametrize("prefix", [prefix for prefix in PREFIXES if prefix])
def test_each_version_of_criu(own_account: Account, directory_of: Directories, prefix: str) -> None:
    """The images of each CRIU (4.1 has 32-bit counts in its pagemaps) are rewritten and restored."""
    env = {"LIBCRIU_PY_CRIU": f"{prefix}/sbin/criu"}
    mode = Mode(MODES[0], MODES[0], own_account)
    for code, argument, wanted in ((PANDAS, "8", "True 8\n"), (TREE, "", "yyy\n")):
        snapshot = take_mapped(mode, directory_of(own_account), code, env=env)
        assert memory_of(snapshot)["kind"] == "map"
        done = snapshot.run(argument, env=env)
        assert done.stdout == wanted, done.stderr


@pytest.mark.parametrize("name", IN_PLACE)
def test_a_copy_can_be_checkpointed(mode_named: Callable[[str], Mode], directory_of: Directories, name: str) -> None:
    """A copy with mapped memory makes a snapshot of its own, which restores as long as the first one is there."""
    code = """
    import os, sys
    from libcriu_py import checkpoint
    data = bytearray(b"d" * (8 << 20))
    base = os.environ["LIBCRIU_PY_SNAPSHOT"]
    with checkpoint():
        pass
    data[:3] = b"new"
    os.environ.pop("LIBCRIU_PY_SNAPSHOT", None)
    if len(sys.argv) > 1:
        with checkpoint(base + "-second"):
            pass
        print(data[:4], data.count(b"d"), flush=True)
    """
    # In a rootless copy a checkpoint is impossible: it is in a namespace that is its own, without a criu.
    mode = mode_named(name)
    snapshot = take_mapped(mode, directory_of(mode.account), code)
    second = snapshot._replace(path=snapshot.path.with_name(f"{snapshot.path.name}-second"))
    done = snapshot.run("again", env={"LIBCRIU_PY_ENGINE": mode.engine})
    assert done.returncode == 0, done.stderr
    done = second.run("again")
    assert done.stdout == f"bytearray(b'newd') {(8 << 20) - 3}\n", done.stderr


WIPED = """
    import ctypes, mmap, os, sys
    from libcriu_py import checkpoint
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    state, around = mmap.mmap(-1, 3 * mmap.PAGESIZE, flags=flags), mmap.mmap(-1, 3 * mmap.PAGESIZE, flags=flags)
    once = mmap.mmap(-1, mmap.PAGESIZE, flags=flags)
    keep = bytes(range(256)) * 50_000
    key = bytes(number ^ 0x55 for number in b"key of a generator")
    for place in (state, around, once):
        for number, byte in enumerate(key):
            place[mmap.PAGESIZE // 2 + number] = byte ^ 0xaa if place is state else byte
    state.madvise(18)   # MADV_WIPEONFORK
    once.madvise(mmap.MADV_DONTFORK)
    with checkpoint():
        pass
    at = slice(mmap.PAGESIZE // 2, mmap.PAGESIZE // 2 + len(key))
    first = bytes(state)
    state[at] = b"x" * len(key)
    child = os.fork()
    if child == 0:
        os._exit(any(bytes(state)))   # the advice has come back too
    print(not any(first), around[at] == once[at] == key, os.waitpid(child, 0)[1], keep == bytes(range(256)) * 50_000)
"""


@pytest.mark.parametrize("memory", ["copy", "auto"])
def test_memory_that_a_fork_wipes_is_empty_in_copies(
    mode: Mode, directory_of: Callable[[Account], Path], memory: str
) -> None:
    """Generators keep their state in such memory: a copy finds zeros, and what it was is in no file of the snapshot."""
    snapshot = take_mapped(mode, directory_of(mode.account), WIPED, memory=memory)
    assert memory_of(snapshot)["kind"] == ("copy" if memory == "copy" else "map")
    assert snapshot.run().stdout == "True True 0 True\n"
    key = bytes(number ^ 0xFF for number in b"key of a generator")
    files = [path for path in snapshot.path.rglob("*") if path.is_file()]
    assert [path for path in files if key in path.read_bytes()] == []
