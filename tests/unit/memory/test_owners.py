"""Recognising whose memory it is, from made-up content."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

import pytest

from libcriu_py.memory import allocators, libraries, memory as m, owners
from libcriu_py.memory.memory import Memory
from libcriu_py.memory.owners import Census, recognise
from tests.unit.mapped_images import (
    ANON,
    FILE,
    LIBRARY,
    PAGE,
    Vma,
    block,
    chunks,
    pools,
    spread,
    write_process,
    write_rest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HEAP = ANON | m.HEAP
ARENA = (64 << 20) // PAGE


def found(
    directory: Path,
    areas: Sequence[Vma],
    pages: dict[int, bytes],
    *,
    brk: tuple[int, int] = (0, 0),
    census: Census | None = None,
    others: bool = False,
) -> list[tuple[int, int, str]]:
    """Recognise owners, in pages."""
    write_process(directory / "images", 1, areas, pages, brk=brk)
    with Memory(str(directory / "images"), 1) as memory:
        known = recognise(memory, census=census, others=others)
    return [(start // PAGE, end // PAGE, owner) for start, end, owner in known]


def test_a_heap_of_chunks(tmp_path: Path) -> None:
    """A heap whose chunks lead from its beginning to its end is glibc's."""
    areas = [Vma(0x100, 8, HEAP)]
    pages = spread(0x100, chunks(0x290, 0x20, 0x1000, 8 * PAGE - 0x290 - 0x1020))
    assert found(tmp_path, areas, pages, brk=(0x100, 0x108)) == [(0x100, 0x108, owners.MALLOC_HEAP)]


@pytest.mark.parametrize("size", [0, 0x18, 0x1008, 9 * PAGE, 0x1006])
def test_a_heap_that_leads_astray(tmp_path: Path, size: int) -> None:
    """A size that is none, or that goes beyond the end, or a flag that no chunk of a heap has, means another owner."""
    pages = spread(0x100, chunks(0x290) + struct.pack("<QQ", 0, size | 1).ljust(PAGE, b"\x01"))
    assert found(tmp_path, [Vma(0x100, 8, HEAP)], pages, brk=(0x100, 0x108)) == []


@pytest.mark.parametrize(
    "strange", [Vma(0x104, 4, HEAP, prot=7), Vma(0x104, 4, HEAP, flags=0x2022), Vma(0x104, 4, HEAP, madvice=1 << 10)]
)
def test_a_heap_with_a_strange_part(tmp_path: Path, strange: Vma) -> None:
    """A heap that is executable, locked or under advice in a part is left alone."""
    pages = spread(0x100, chunks(8 * PAGE))
    assert found(tmp_path, [Vma(0x100, 4, HEAP), strange], pages, brk=(0x100, 0x108)) == []


def test_an_arena_of_a_thread(tmp_path: Path) -> None:
    """The header at a multiple of 64 MB says how much is writable; unless it fits the area, it is something else."""
    start = 3 * ARENA
    for writable, wanted in ((0x21, [(start, start + 0x21, owners.MALLOC_ARENA)]), (0x23, [])):
        header = struct.pack("<QQQQ", start * PAGE + 0x30, 0, 0x20 * PAGE, writable * PAGE)
        directory = tmp_path / str(writable)
        directory.mkdir()
        areas = [Vma(start, 0x21, flags=0x4022), Vma(start + 0x21, ARENA - 0x21, flags=0x4022, prot=0)]
        assert found(directory, areas, spread(start, header)) == wanted


@pytest.mark.parametrize("lead", [0, 48, 4080])
def test_large_blocks(tmp_path: Path, lead: int) -> None:
    """Blocks that lead to the end of their area are malloc's; the first page of each is left out."""
    pages = spread(0x1000, block(20, lead) + block(30))
    wanted = [(0x1001, 0x1014, owners.MALLOC_BLOCK), (0x1015, 0x1032, owners.MALLOC_BLOCK)]
    assert found(tmp_path, [Vma(0x1000, 50)], pages) == wanted


def test_blocks_with_something_behind_them(tmp_path: Path) -> None:
    """Blocks before something unknown are proved by malloc's own count only, and then beside other allocators too."""
    pages = spread(0x1000, b"\x33" * PAGE * 3 + block(20) + block(30) + b"\x44" * PAGE * 5)
    wanted = [(0x1004, 0x1017, owners.MALLOC_BLOCK), (0x1018, 0x1035, owners.MALLOC_BLOCK)]
    areas = [Vma(0x1000, 58)]
    cases = (None, Census(2, 49 * PAGE), Census(3, 50 * PAGE), Census(2, 50 * PAGE))
    for number, census in enumerate(cases):
        for others in (False, True):
            directory = tmp_path / f"{number}{others}"
            directory.mkdir()
            right = wanted if census == cases[-1] else []
            assert found(directory, areas, pages, census=census, others=others) == right


def test_blocks_beside_another_allocator(tmp_path: Path) -> None:
    """Where other allocators are, what looks like a block is none without a proof."""
    assert found(tmp_path, [Vma(0x1000, 20)], spread(0x1000, block(20)), others=True) == []


def test_pools_of_arenas(tmp_path: Path) -> None:
    """Pools belong together while they name one arena; a block beside them is found up to where an arena may begin."""
    pages = spread(0x1002, block(34)) | spread(0x1024, b"\x55" * PAGE) | spread(0x1024, pools(5, 60))
    pages |= spread(0x1024 + 60 * 4, pools(9, 3))
    wanted = [
        (0x1003, 0x1024, owners.MALLOC_BLOCK),
        (0x1024, 0x1114, owners.PYMALLOC),
        (0x1114, 0x1120, owners.PYMALLOC),
    ]
    assert found(tmp_path, [Vma(0x1002, 0x200)], pages) == wanted


def test_data_of_libraries(tmp_path: Path) -> None:
    """Private mappings of a file count only if the file is mapped for execution too."""
    code, data = Vma(0x100, 2, FILE, 5, 2, LIBRARY), Vma(0x102, 2, FILE, 3, 2, LIBRARY)
    other = Vma(0x200, 2, FILE, 3, 2, LIBRARY + 1)
    assert found(tmp_path, [code, data, other], {}) == [(0x102, 0x104, owners.LIBRARY_DATA)]


def test_random_content_has_no_owner(tmp_path: Path) -> None:
    """Nothing is recognised in memory of random bytes, or of zeros, or in a stack."""
    chance = random.Random(1)
    areas = [Vma(0x100, 16, HEAP), Vma(ARENA, 800), Vma(2 * ARENA, 800), Vma(0x90000, 16, flags=0x122)]
    pages = {page: chance.randbytes(PAGE) for vma in areas[:2] for page in range(vma.start, vma.start + vma.pages)}
    pages |= spread(0x90000, block(16)) | spread(2 * ARENA, bytes(800 * PAGE))
    assert found(tmp_path, areas, pages, brk=(0x100, 0x110)) == []


@pytest.mark.parametrize("vma", [Vma(0x1000, 20, prot=7), Vma(0x1000, 20, flags=0x2022), Vma(0x1000, 20, madvice=1)])
def test_only_ordinary_areas_have_owners(tmp_path: Path, vma: Vma) -> None:
    """A block in memory that is executable, locked or under advice is left alone."""
    assert found(tmp_path, [vma], spread(0x1000, block(20))) == []


def test_this_malloc_counts_its_blocks() -> None:
    """The C library says how many large blocks there are, and how large they are together."""
    before = owners.take_census()
    assert before is not None
    kept = bytearray(64 << 20)
    after = owners.take_census()
    assert after is not None
    assert after.number == before.number + 1
    assert after.size - before.size >= len(kept)


def images_with(directory: Path, library: str, environment: bytes = b"") -> list[allocators.Allocator]:
    """Look for allocators in a process with a library and an environment."""
    code = Vma(0x100, 2, FILE, 5, 2, LIBRARY)
    write_process(directory / "images", 1, [code, Vma(0x9000, 1)], spread(0x9000, environment or b"\0"))
    write_rest(directory / "images", library)
    with Memory(str(directory / "images"), 1) as memory:
        memory.mm.set(10, 0x9000 * PAGE)
        memory.mm.set(11, 0x9000 * PAGE + len(environment))
        return allocators.found(libraries.files(str(directory / "images")), [memory])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (b"<jemalloc>: Error", "jemalloc"),
        (b"mimalloc: warning: %s", "mimalloc"),
        (b"TCMALLOC_RELEASE_RATE", "tcmalloc"),
        (b"\xff Go buildinf:", "Go"),
    ],
)
def test_allocators_are_found_by_their_texts(tmp_path: Path, text: bytes, name: str) -> None:
    """A mapped file with such a text has that allocator, and tcmalloc's may have the heap."""
    library = tmp_path / "libsome.so"
    library.write_bytes(b"\0" * 5000 + text)
    there = images_with(tmp_path, str(library))
    assert [one.name for one in there] == [name]
    assert allocators.owns_heap(there) == (name == "tcmalloc")
    assert name in allocators.describe(there)


def test_a_file_that_is_gone_may_be_anything(tmp_path: Path) -> None:
    """What cannot be looked at counts as an allocator that has the heap."""
    there = images_with(tmp_path, str(tmp_path / "gone.so"))
    assert [one.name for one in there] == ["unknown"]
    assert allocators.owns_heap(there)


def test_no_allocator_is_found_in_python(tmp_path: Path) -> None:
    """An ordinary library of Python's has none."""
    import _ctypes

    assert images_with(tmp_path, _ctypes.__file__) == []


@pytest.mark.parametrize(
    ("name", "environment", "found_there"),
    [
        ("python3.13", b"A=1\0PYTHONMALLOC=pymalloc\0", False),
        ("python3.13", b"A=1\0PYTHONMALLOC=mimalloc\0", True),
        ("python3.13t", b"A=1\0", True),
        ("libpython3.13.so.1.0", b"A=1\0", False),
        ("libpython3.13t.so.1.0", b"A=1\0", True),
        ("libother.so", b"A=1\0", True),
    ],
)
def test_mimalloc_in_python(tmp_path: Path, name: str, environment: bytes, found_there: bool) -> None:  # noqa: FBT001
    """Since 3.13 every Python has a mimalloc, which only free-threaded ones use without being told to."""
    file = tmp_path / name
    file.write_bytes(b"mimalloc: error")
    assert [one.name for one in images_with(tmp_path, str(file), environment)] == ["mimalloc"] * found_there
