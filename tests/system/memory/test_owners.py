"""Purging allocators and growing blocks: right with the memory that is mapped, wrong if just anything were."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import MODES, Mode
from tests.system.mapped_programs import memory_of, take_both, take_mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

MADVISE = """
    import mmap
    from libcriu_py import checkpoint
    area = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    area[:] = b"x" * len(area)
    with checkpoint():
        pass
    area.madvise(mmap.MADV_DONTNEED)
    print("zeros" if area[:] == bytes(len(area)) else "old bytes", flush=True)
"""
"""A program that purges memory of its own."""

REALLOC = """
    from libcriu_py import checkpoint
    blocks = [bytearray(letter * (40 << 20)) for letter in (b"a", b"b")]
    numbers = list(range(256)) * 20_000
    with checkpoint():
        pass
    for block, letter in zip(blocks, (b"a", b"b")):
        del block[8 << 20 :]
        assert block == letter * (8 << 20)
        for size in (60, 5, 5, 5, 90):
            block.extend(letter * (size << 20))
            assert block == letter * len(block)
    del numbers[4_000 << 8 :]
    numbers.extend(list(range(256)) * 24_000)
    assert numbers == list(range(256)) * 28_000
    print("grown", flush=True)
"""
"""A program whose large blocks shrink and grow by mremap."""

NUMPY = """
    import numpy
    from libcriu_py import checkpoint
    arrays = [numpy.full(4_000_000, number, dtype=numpy.int64) for number in range(3)]
    with checkpoint():
        pass
    for number, array in enumerate(arrays):
        assert (array == number).all()
        array.resize(1_000_000, refcheck=False)
        array.resize(9_000_000, refcheck=False)
        assert (array[:1_000_000] == number).all()
        assert not array[1_000_000:].any()
        assert not numpy.zeros(4_000_000).any()
    print("right", flush=True)
"""
"""A program with arrays for which numpy asks for huge pages."""

ALLOCATE = """
    import ctypes, random, threading
    from libcriu_py import checkpoint
    libc = ctypes.CDLL(None)
    libc.malloc.restype = libc.calloc.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.calloc.argtypes = [ctypes.c_size_t], [ctypes.c_size_t] * 2
    libc.free.argtypes = [ctypes.c_void_p]
    trim = getattr(libc, "malloc_trim", lambda kept: None)
    sizes = [24, 100, 1000, 5000, 60_000, 100_000, 500_000, 3_000_000]
    warm, go = threading.Barrier(5), threading.Event()
    dirty = []

    def fill(allocate, chance, byte):
        blocks = []
        for _ in range(1500):
            size = chance.choices(sizes, [9, 9, 9, 9, 5, 5, 0.3, 0.1])[0]
            block = allocate(size)
            if allocate is zeroed and ctypes.string_at(block, size) != bytes(size):
                dirty.append(size)
            ctypes.memset(block, byte, size)
            blocks.append(block)
        return blocks

    def zeroed(size):
        return libc.calloc(1, size)

    def work(seed):
        chance = random.Random(seed)
        blocks = fill(libc.malloc, chance, 0xAA)
        if seed:
            warm.wait()
            go.wait()
        else:
            warm.wait()
            with checkpoint():
                pass
            go.set()
        for _ in range(4):
            chance.shuffle(blocks)
            for keep in (len(blocks) // 3, 0):
                while len(blocks) > keep:
                    libc.free(blocks.pop())
                trim(0)
                # Purges come with age, and are carried out by later calls.
                for _ in range(60):
                    threading.Event().wait(0.005)
                    libc.free(libc.malloc(100))
                blocks += fill(zeroed, chance, 0x55)

    others = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for thread in others:
        thread.start()
    work(0)
    for thread in others:
        thread.join()
    print("dirty" if dirty else "zeros", flush=True)
"""
"""A program that fills memory in five threads and, in its copies, frees, purges and allocates zeros again and again."""

POLARS = """
    import time
    import polars
    from libcriu_py import checkpoint
    size = 4_000_000
    filled = [polars.select(polars.repeat(7 + i, size, dtype=polars.Int64)).to_series() for i in range(8)]
    with checkpoint():
        pass
    del filled
    for _ in range(4):
        time.sleep(1)
        for count in (size, size // 4, 5000):
            zeros = [polars.zeros(count, dtype=polars.Float64, eager=True) for _ in range(3)]
            if any(series.sum() != 0 for series in zeros):
                print("wrong", flush=True)
                raise SystemExit
    print("right", flush=True)
"""
"""A program with polars, whose jemalloc purges half a second after a free; what is wrong shows after a second."""


@pytest.fixture
def root(own_account: Account, directory_of: Directories) -> tuple[Mode, Path]:
    """One mode is enough: what is mapped does not depend on it."""
    name = MODES[0]
    return Mode(name, name.removesuffix("-as-root"), own_account), directory_of(own_account)


def output(snapshot: SelfDump) -> str:
    """Return what a copy prints."""
    done = snapshot.run()
    assert done.returncode == 0, done.stderr
    printed: str = done.stdout
    return printed


def test_memory_that_the_program_purges(root: tuple[Mode, Path]) -> None:
    """After MADV_DONTNEED a program's own mapping is zeros, because it stays copied."""
    both = take_both(*root, MADVISE)
    assert output(both.safe) == "zeros\n"
    assert output(both.unsafe) == "old bytes\n"


def test_blocks_that_grow(root: tuple[Mode, Path]) -> None:
    """Large blocks of malloc are mapped, and grow all the same; unless their first page is anonymous, by a SIGBUS."""
    both = take_both(*root, REALLOC)
    assert memory_of(both.safe)["owners"]["malloc block"] > 100 << 20
    assert output(both.safe) == "grown\n"
    assert both.unsafe.run().returncode == -signal.SIGBUS


def test_arrays_of_huge_pages(root: tuple[Mode, Path]) -> None:
    """Arrays of numpy are mapped although it has asked for huge pages, and can be resized."""
    snapshot = take_mapped(*root, NUMPY)
    assert memory_of(snapshot)["owners"]["malloc block"] > 90_000_000
    assert output(snapshot) == "right\n"


def test_glibc_in_all_its_ways_to_purge(root: tuple[Mode, Path]) -> None:
    """Heap, thread arenas and large blocks of glibc's malloc are mapped, trimmed and purged, and calloc gives zeros."""
    snapshot = take_mapped(*root, ALLOCATE)
    memory = memory_of(snapshot)
    assert {"malloc heap", "malloc arena", "malloc block", "pymalloc"} <= set(memory["owners"])
    assert memory["bytes"] > 20 * memory["copied"]
    assert output(snapshot) == "zeros\n"


@pytest.fixture(scope="session")
def polars() -> Path:
    """Install polars where only these tests find it; pip's cache makes the second time quick."""
    directory = Path.home() / ".cache" / "libcriu_py-tests" / f"polars-{sys.version_info[0]}.{sys.version_info[1]}"
    if not (directory / "polars").exists():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", str(directory), "polars>=1"], check=True)
    return directory


def test_jemalloc_in_polars(root: tuple[Mode, Path], polars: Path) -> None:
    """The memory of polars' jemalloc stays copied, and its zeros are zeros; mapped, they are what was there before."""
    path = os.pathsep.join([str(polars), str(Path(__file__).resolve().parents[3])])
    both = take_both(*root, POLARS, env={"PYTHONPATH": path})
    memory = memory_of(both.safe)
    assert "jemalloc" in memory["why"]
    assert memory["copied"] > 200 << 20
    assert output(both.safe) == "right\n"
    assert output(both.unsafe) == "wrong\n"


def test_arenas_are_known_from_end_to_end(root: tuple[Mode, Path]) -> None:
    """Where pymalloc's table of arenas is found, an arena is known as a whole, as the kernel knows its mapping."""
    program = """
        from libcriu_py import checkpoint
        kept = [object() for _ in range(1_000_000)]
        with checkpoint():
            pass
        assert len({*kept}) == 1_000_000
        print("kept", flush=True)
    """
    snapshot = take_mapped(*root, program)
    tell = """
        import glob, re, sys
        from libcriu_py.memory.memory import Memory
        from libcriu_py.memory.pymalloc import ARENA
        images = f"{sys.argv[1]}/images"
        pid = int(re.search(r"mm-(\\d+)", *glob.glob(f"{images}/mm-*.img"))[1])
        with Memory(images, pid) as memory:
            mapped = [area.end - area.start for area in memory.areas if area.status == 0x41 and area.prot == 3]
        print(max(mapped) // ARENA)
    """
    # By their pools alone, there would be an area for each, of less than its size.
    assert int(snapshot.call(tell).stdout) >= 4
    assert snapshot.run().stdout == "kept\n"
