"""Bss behind the data of libraries, and neighbouring mappings that become one area, which the check sees through."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory import libraries, memory as m, optimize
from libcriu_py.memory.memory import Memory
from tests.unit.mapped_images import (
    ANON,
    FILE,
    KEY,
    LIBRARY,
    PAGE,
    UNKNOWN,
    Images,
    Vma,
    block,
    chunks,
    library,
    page,
    pools,
    spread,
    write_process,
    write_rest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CODE = Vma(0xF8, 4, FILE, prot=5, flags=2, shmid=LIBRARY)
DATA = Vma(0xFC, 18, FILE, prot=3, flags=2, shmid=LIBRARY, pgoff=4 * PAGE)
BSS = Vma(0x10E, 2)
ARENA = Vma(0x10E, 2 + 0x100)
"""The bss, and an arena of pymalloc behind it, which the kernel has made one area."""
ELF = library((4 * PAGE + 0x10, 17 * PAGE + 0x20, 19 * PAGE))
"""Its data ends in page 21 of the file, and 2 pages of bss follow."""
STORED = {number: page(f"{number:x}") for number in range(0x104, 0x110)}
"""The first 8 pages of the data were not written to."""
POOLS = spread(0x110, pools(5, 0x40))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Images]:
    """Write images of processes with a library, and map their memory."""

    def write(
        areas: Sequence[Vma], *processes: dict[int, bytes], elf: bytes = ELF, brk: tuple[int, int] = (0, 0)
    ) -> Images:
        before, after = tmp_path / "before", tmp_path / "images"
        for number, pages in enumerate(processes, 1):
            write_process(before, number, areas, pages, number=number, brk=brk, program=LIBRARY)
        (tmp_path / "libsome.so").write_bytes(elf)
        write_rest(before, str(tmp_path / "libsome.so"), len(ELF))
        shutil.copytree(before, after)
        result = optimize.map_memory(str(after), str(tmp_path / "memory.img"), KEY, wanted="map")
        assert result.kind == "map", result.why
        return Images(before, after, tmp_path / "memory.img")

    return write


def test_data_bss_and_what_is_behind_become_one(make: Callable[..., Images]) -> None:
    """What was written of the data, the bss, however short, and an arena are one mapping, which has all their pages."""
    made = make([CODE, DATA, ARENA], STORED | POOLS)
    assert made.mapped() == [(0x104, 0x210)]
    checked = made.check()
    assert checked.mapped == (0x210 - 0x104) * PAGE
    assert checked.copied == 0
    with Memory(str(made.after), 1) as after:
        assert [area.start // PAGE for area in after.areas] == [0xF8, 0xFC, 0x104]
        assert all(UNKNOWN in area.message.fields for area in after.areas)
        assert after.areas[2].flags == m.MAP_PRIVATE
        place = after.areas[2].message.number(m.PGOFF)
    content = made.memory.read_bytes()[place:]
    assert content == b"".join(pages for _, pages in sorted((STORED | POOLS).items()))


@pytest.mark.parametrize("number", [0x104, 0x10D, 0x10E, 0x10F, 0x110, 0x20F])
def test_a_byte_anywhere_in_it_is_found(make: Callable[..., Images], number: int) -> None:
    """Each part of one mapping is compared, on both sides of each border."""
    made = make([CODE, DATA, ARENA], STORED | POOLS)
    made.memory.chmod(0o600)
    for offset in (0, PAGE - 1):
        data = bytearray(made.memory.read_bytes())
        data[(number - 0x104) * PAGE + offset] ^= 1
        made.memory.write_bytes(data)
        with pytest.raises(ImageError, match="the memory of process 1 from"):
            made.check()
        data[(number - 0x104) * PAGE + offset] ^= 1
        made.memory.write_bytes(data)
        made.check()


@pytest.mark.parametrize("number", [0x104, 0x106, 0x10D])
def test_a_clean_page_of_a_file_in_it_is_found(make: Callable[..., Images], number: int) -> None:
    """A mapping of which a part is not what is in the library's file, where nobody wrote to that, is refused."""
    made = make([CODE, DATA, ARENA], STORED | POOLS)
    shutil.rmtree(made.before)
    less = {at: content for at, content in (STORED | POOLS).items() if at != number}
    write_process(made.before, 1, [CODE, DATA, ARENA], less, program=LIBRARY)
    write_rest(made.before, str(made.before.parent / "libsome.so"), len(ELF))
    with pytest.raises(ImageError, match="the memory of process 1 from"):
        made.check()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (m.PROT, 1),
        (m.FLAGS, 0x122),
        (m.FLAGS, 0x2022),
        (m.STATUS, ANON | m.HEAP),
        (m.STATUS, 0x101),
        (m.MADV, 1 << 10),
        (m.START, 0x10F * PAGE),
        (m.END, 0x20F * PAGE),
        (1000, b"other"),
    ],
)
def test_another_area_in_it_is_found(make: Callable[..., Images], field: int, value: int | bytes) -> None:
    """Areas become one only if they are alike, with no gap between them, and none is the heap or special."""
    made = make([CODE, DATA, ARENA], STORED | POOLS)
    made.check()
    made.change_before(lambda areas: areas[2].set(field, value))
    with pytest.raises(ImageError):
        made.check()


def test_growing_memory_is_never_mapped(make: Callable[..., Images]) -> None:
    """A mapping that grows downwards, as the original area did, is refused, too."""
    made = make([CODE, DATA, ARENA], STORED | POOLS)
    made.change_before(lambda areas: areas[2].set(m.FLAGS, 0x122))
    path = made.after / "mm-1.img"
    (mm,) = framing.read(str(path), "mm")
    areas = [Message.parse(data) for data in mm.all_bytes(m.MM_VMAS)]
    first, second = areas[2], areas[2].copy()
    first.set(m.END, 0x10E * PAGE)
    second.set(m.START, 0x10E * PAGE)
    second.set(m.PGOFF, first.number(m.PGOFF) + 10 * PAGE)
    second.set(m.FLAGS, 0x102)
    mm.replace_all(m.MM_VMAS, [area.encode() for area in (*areas[:2], first, second)])
    path.unlink()
    framing.write(str(path), "mm", [mm])
    with pytest.raises(ImageError, match="special"):
        made.check()


def test_the_heap_stays_an_area_of_its_own(make: Callable[..., Images]) -> None:
    """The heap right behind the bss of a program is mapped, but not as one with it."""
    heap = Vma(0x110, 8, ANON | m.HEAP)
    pages = STORED | spread(0x110, chunks(8 * PAGE))
    made = make([CODE, DATA, BSS, heap], pages, brk=(0x110, 0x118))
    assert made.mapped() == [(0x104, 0x110), (0x110, 0x118)]
    made.check()


def test_bss_in_the_area_of_the_heap_is_left_to_it(make: Callable[..., Images]) -> None:
    """Where the kernel has made bss and heap one area, all of it is the heap's."""
    made = make(
        [CODE, DATA, Vma(0x10E, 10, ANON | m.HEAP)], STORED | spread(0x110, chunks(8 * PAGE)), brk=(0x110, 0x118)
    )
    assert made.mapped() == [(0x104, 0x10E), (0x10E, 0x118)]
    made.check()


def test_large_blocks_stay_areas_of_their_own(make: Callable[..., Images]) -> None:
    """A large block of malloc, which may get a file of its own, does not become one with an arena behind it."""
    pages = STORED | spread(0x1002, block(34)) | spread(0x1024, pools(5, 0x40))
    made = make([CODE, DATA, BSS, Vma(0x1002, 0x122)], pages)
    assert made.mapped() == [(0x104, 0x110), (0x1003, 0x1024), (0x1024, 0x1124)]
    made.check()


def test_forked_processes_have_it_too(make: Callable[..., Images]) -> None:
    """A child's mapping of the parent's bytes is one area as well; pages in which it differs are its own."""
    child = STORED | POOLS | {0x10D: page("data of the child"), 0x10F: page("bss of the child")}
    made = make([CODE, DATA, ARENA], STORED | POOLS, child)
    assert made.mapped(1) == made.mapped(2) == [(0x104, 0x210)]
    assert made.check().copied == 2 * PAGE
    assert made.memory.stat().st_size == (0x210 - 0x104) * PAGE
    with Memory(str(made.after), 2) as after:
        assert after.read(0x10F * PAGE, PAGE) == page("bss of the child")


@pytest.mark.parametrize(
    ("elf", "why"),
    [
        (library((4 * PAGE, 18 * PAGE, 18 * PAGE)), "it says that there is none"),
        (library((4 * PAGE, 17 * PAGE, 20 * PAGE)), "it is behind data that ends elsewhere"),
        (library((4 * PAGE, 18 * PAGE, 20 * PAGE), size=25 * PAGE), "it is another file by now"),
        (b"#!/bin/sh\n".ljust(len(ELF)), "it is no library"),
        (ELF[:100], "it is cut off"),
        (ELF[:100].ljust(len(ELF), b"\xff"), "it is damaged"),
    ],
    ids=["none", "elsewhere", "another file", "no library", "cut off", "damaged"],
)
def test_other_memory_behind_data_is_not_bss(make: Callable[..., Images], elf: bytes, why: str) -> None:
    """Anonymous memory right behind a library's data stays copied if the library's file does not say that it is bss."""
    made = make([CODE, DATA, BSS], STORED, elf=elf)
    assert made.mapped() == [(0x104, 0x10E)], why
    assert made.check().copied == 2 * PAGE


def test_only_ordinary_memory_is_bss(make: Callable[..., Images]) -> None:
    """Bss that the program has protected or locked stays copied; what is before it is mapped."""
    made = make([CODE, DATA, Vma(0x10E, 1), Vma(0x10F, 1, flags=0x2022)], STORED)
    assert made.mapped() == [(0x104, 0x10F)]
    made.check()


class Shown(NamedTuple):
    """An area as the kernel shows it."""

    start: int
    end: int
    rights: str
    offset: int
    name: str


def shown() -> list[Shown]:
    """Return the areas of this process."""
    found = []
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            addresses, rights, offset, _, _, *name = line.rstrip("\n").split(None, 5)
            start, end = (int(address, 16) for address in addresses.split("-"))
            found.append(Shown(start, end, rights, int(offset, 16), "".join(name)))
    return found


def test_the_bss_of_this_process(tmp_path: Path) -> None:
    """Behind the data of each library of this process, the kernel shows as much anonymous memory as is expected."""
    areas = shown()
    paths = sorted({area.name for area in areas if "x" in area.rights and area.name.startswith("/")})
    seen = 0
    for number, path in enumerate(paths):
        directory = tmp_path / str(number)
        write_process(directory, 1, [CODE], {})
        write_rest(directory, path, Path(path).stat().st_size)
        with Memory(str(directory), 1) as memory:
            bss = libraries.bss(libraries.files(str(directory)), [memory])[LIBRARY]
        for area, following in itertools.pairwise(areas):
            behind = bss.get(area.offset + area.end - area.start, 0)
            if behind and area.name == path and "w" in area.rights:
                assert following.start == area.end, path
                assert following.end - following.start >= behind, path
                assert following.rights == "rw-p", path
                assert following.name in {"", "[heap]"}, path
                seen += 1
    assert seen
