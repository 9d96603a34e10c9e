"""Small libraries, which are in `memory.img` as a whole, and what is never taken for one."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from libcriu_py.errors import ImageError
from libcriu_py.memory import libraries, memory as m, optimize, plan
from libcriu_py.memory.memory import Memory
from libcriu_py.memory.owners import LIBRARY_FILE, Owned
from tests.snapshots import launch_of_here
from tests.unit.mapped_images import (
    FILE,
    KEY,
    LIBRARY,
    PAGE,
    Images,
    Vma,
    library,
    page,
    pools,
    spread,
    write_process,
    write_rest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

HEADERS = Vma(0xF8, 1, FILE, prot=1, flags=2, shmid=LIBRARY)
CODE = Vma(0xF9, 3, FILE, prot=5, flags=2, shmid=LIBRARY, pgoff=PAGE)
CONSTANTS = Vma(0xFC, 8, FILE, prot=1, flags=2, shmid=LIBRARY, pgoff=4 * PAGE)
RELOCATED = Vma(0x104, 2, FILE, prot=1, flags=2, shmid=LIBRARY, pgoff=12 * PAGE)
DATA = Vma(0x106, 8, FILE, prot=3, flags=2, shmid=LIBRARY, pgoff=14 * PAGE)
BSS = Vma(0x10E, 2)
AREAS = [HEADERS, CODE, CONSTANTS, RELOCATED, DATA, BSS]
ELF = library((14 * PAGE, 7 * PAGE + 7, 10 * PAGE), size=PAGE)
ELF += b"".join(page(str(number)) for number in range(1, 21)) + b"the end"
"""Its last page is not a whole one, and 2 pages of bss follow."""
LARGE = ELF.ljust(0x900 * PAGE)
STORED = {number: page(f"{number:x}") for number in (0x104, 0x105, 0x107, 0x10F)}
"""What was relocated, and a page each of the data and of the bss."""
ARENA = Vma(0x4000, 0x100)
POOLS = spread(0x4000, pools(5, 0x40))


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Images]:
    """Write images of processes with a library, and map their memory."""

    def write(
        *processes: dict[int, bytes],
        areas: Sequence[Vma] = AREAS,
        elf: bytes = ELF,
        name: str = "libsome.so",
        size: int = len(ELF),
        program: int = 0,
    ) -> Images:
        before, after = tmp_path / "before", tmp_path / "images"
        for number, pages in enumerate(processes or (STORED,), 1):
            write_process(before, number, [*areas, ARENA], pages | POOLS, number=number, program=program)
        (tmp_path / name).write_bytes(elf)
        write_rest(before, str(tmp_path / name), size)
        shutil.copytree(before, after)
        result = optimize.map_memory(str(after), str(tmp_path / "memory.img"), KEY, wanted="map")
        assert result.kind == "map", result.why
        assert result.record(launch_of_here()).maps_code is ("library file" in result.owners)
        return Images(before, after, tmp_path / "memory.img")

    return write


def of_library(made: Images, pid: int = 1) -> list[tuple[int, int]]:
    """Return the areas in the place of the library that are mapped from the file."""
    return [area for area in made.mapped(pid) if area[1] < ARENA.start]


def test_a_small_library_is_mapped_as_a_whole(make: Callable[..., Images]) -> None:
    """Neighbours of one protection are one area; pages that nobody wrote to are those of the library's file."""
    made = make()
    assert of_library(made) == [(0xF8, 0xF9), (0xF9, 0xFC), (0xFC, 0x106), (0x106, 0x110)]
    checked = made.check()
    assert checked.copied == 0
    with Memory(str(made.after), 1) as after:
        assert [area.prot for area in after.areas[:4]] == [1, 5, 1, 3]
        places = [area.message.number(m.PGOFF) for area in after.areas[:4]]
    content = made.memory.read_bytes()[places[0] :]
    assert places == [places[0] + at * PAGE for at in (0, 1, 4, 14)]
    expected = bytearray(ELF.ljust(24 * PAGE, b"\0"))
    for number, data in STORED.items():
        expected[(number - 0xF8) * PAGE : (number - 0xF7) * PAGE] = data
    assert content[: 24 * PAGE] == expected


@pytest.mark.parametrize("number", [0xF8, 0xF9, 0xFB, 0xFC, 0x104, 0x106, 0x107, 0x10D, 0x10E, 0x10F])
def test_a_byte_anywhere_in_it_is_found(make: Callable[..., Images], number: int) -> None:
    """Each page is compared, those from the library's file and those that were written to."""
    made = make()
    made.memory.chmod(0o600)
    for offset in (0, PAGE - 1):
        data = bytearray(made.memory.read_bytes())
        data[(number - 0xF8) * PAGE + offset] ^= 1
        made.memory.write_bytes(data)
        with pytest.raises(ImageError, match="the memory of process 1 from"):
            made.check()


@pytest.mark.parametrize(("field", "value"), [(m.PROT, 7), (m.FLAGS, 0x22), (m.FLAGS, 1), (m.PGOFF, 2 * PAGE)])
def test_another_area_is_found(make: Callable[..., Images], field: int, value: int) -> None:
    """Code that was another one, of no file, or of another part of it, is refused."""
    made = make()
    made.change_before(lambda areas: areas[1].set(field, value))
    with pytest.raises(ImageError):
        made.check()


def test_a_library_that_changes_meanwhile_is_refused(make: Callable[..., Images], tmp_path: Path) -> None:
    """What cannot be compared is not taken for equal."""
    made = make()
    (tmp_path / "libsome.so").write_bytes(ELF + b"more")
    with pytest.raises(ImageError, match=r"libsome\.so cannot be compared"):
        made.check()


@pytest.mark.parametrize(
    "settings",
    [
        {"program": LIBRARY},
        {"name": "memory.img.d", "elf": b"#!/bin/sh\n".ljust(len(ELF))},
        {"name": "libcrypto.so.3"},
        {"size": len(ELF) + 1},
        {"elf": ELF[:-PAGE], "size": len(ELF) - PAGE},
        {"areas": [*AREAS, CODE._replace(start=0x2000, pages=0x801)], "elf": LARGE, "size": len(LARGE)},
    ],
    ids=["the program", "no library", "one that is looked for", "another one", "too short", "large"],
)
def test_others_stay_what_they_are(make: Callable[..., Images], settings: dict[str, object]) -> None:
    """Of them, what was written to is mapped as ever, where it is long enough."""
    made = make(**settings)
    assert made.mapped()[-1] == (0x4000, 0x4100)
    with Memory(str(made.after), 1) as after:
        code = [area for area in after.areas if area.prot & m.PROT_EXEC]
        assert {area.message.number(m.SHMID) for area in code} == {LIBRARY}
    made.check()


def test_an_earlier_memory_image_is_no_library(make: Callable[..., Images], tmp_path: Path) -> None:
    """A copy with code from the memory of its snapshot, when it is dumped, keeps that file, and needs it."""
    elsewhere = tmp_path / "earlier"
    elsewhere.mkdir()
    made = make(name="earlier/memory.img", elf=b"\x7fELF\x02".ljust(len(ELF), b"\x55"))
    assert of_library(made) == []
    assert libraries.memory_images(libraries.files(str(made.before))) == {LIBRARY}


def test_forked_processes_share_it(make: Callable[..., Images]) -> None:
    """A child's library is the parent's; an area in which it differs is in the file once more."""
    made = make(STORED, STORED | {0x108: page("of the child")}, STORED)
    assert of_library(made, 1) == of_library(made, 3) == [(0xF8, 0xF9), (0xF9, 0xFC), (0xFC, 0x106), (0x106, 0x110)]
    assert of_library(made, 2) == [(0xF8, 0xF9), (0xF9, 0xFC), (0xFC, 0x106), (0x106, 0x10E), (0x10E, 0x110)]
    assert made.memory.stat().st_size == (24 + ARENA.pages + DATA.pages) * PAGE
    assert made.check().copied == 0
    made.memory.chmod(0o600)
    data = bytearray(made.memory.read_bytes())
    data[-1] ^= 1
    made.memory.write_bytes(data)
    with pytest.raises(ImageError, match="the memory of process 2 from"):
        made.check()


def test_another_library_in_a_child_is_not_shared(make: Callable[..., Images]) -> None:
    """Equal addresses are not enough: the part of the file must be the same."""
    made = make(STORED, STORED)
    with Memory(str(made.before), 1) as one, Memory(str(made.before), 2) as other:
        layout = plan.Layout()
        owned = [Owned(CODE.start * PAGE, (CODE.start + CODE.pages) * PAGE, LIBRARY_FILE)]
        layout.place(one, owned)
        other.areas[1].message.set(m.PGOFF, 2 * PAGE)
        (segment,) = layout.place(other, owned)
        assert not segment.shared
