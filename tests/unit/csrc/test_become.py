"""
The launcher becomes the process of a plan: its memory, protections and entry.

The plans are written by hand, for a process without libc (tests/native/resumed.c) that reports what it finds.
"""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from libcriu_py.native.plan import PAGE, Area, File
from tests.plans import (
    CSRC,
    DONE,
    FS,
    LOCKED,
    NO_RESERVE,
    PROTECT,
    SHARED,
    STACK,
    plan_of,
    vdso_of_here,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plans import Plan, Start


def maps_of(output: bytes) -> list[tuple[int, int, str, str]]:
    """Return the areas of /proc/self/maps: start, end, protection, path."""
    found = []
    for line in output.decode().splitlines():
        range_, protection, _, _, _, *path = line.split()
        start, end = (int(number, 16) for number in range_.split("-"))
        found.append((start, end, protection, "".join(path)))
    return found


# ---- the blob ------------------------------------------------------------------


def output_of(*command: str | Path) -> str:
    """Return what a tool prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_blob_is_complete(tmp_path: Path) -> None:
    """What runs while nothing else is mapped refers to nothing else, and uses general registers only."""
    target = tmp_path / "blob.o"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}"]
    output_of("cc", *flags, "-c", "-o", target, CSRC / "become" / "blob.c")
    relocations = output_of("readelf", "-rW", target)
    assert re.findall(r"Relocation section '(\S+)'", relocations) == [".rela.eh_frame"]
    sections = output_of("readelf", "-SW", target)
    sizes = {name: int(size, 16) for name, size in re.findall(r"\] (\S+) +\w+ +\w+ \w+ (\w+)", sections)}
    assert sizes["lcp_blob"] % PAGE == 0
    assert not any(size for name, size in sizes.items() if name.startswith((".text", ".data", ".rodata", ".bss")))
    code = output_of("objdump", "-d", "--no-show-raw-insn", "-j", "lcp_blob", target)
    assert not re.search(r"%[xyz]mm|%mm|%st|%fs|%gs", code)
    assert "syscall" in code


def test_blob_is_whole_pages_of_the_launcher(launcher: str) -> None:
    """No other code goes with it when it is moved."""
    sections = output_of("readelf", "-SW", launcher)
    found = re.search(r" lcp_blob +PROGBITS +(\w+) \w+ (\w+)", sections)
    assert found is not None
    assert [int(number, 16) % PAGE for number in found.groups()] == [0, 0]


# ---- memory ----------------------------------------------------------------------


def test_memory_is_as_planned(start: Start) -> None:
    """Areas, protections, content, stack pointer and the thread's memory are those of the plan, and no others."""
    plan, memory = plan_of("umtk")
    done = start(plan, memory)
    assert (done.returncode, done.stderr) == (DONE, b"")
    text, stack = done.stdout[:-8], struct.unpack("<Q", done.stdout[-8:])[0]
    assert stack == plan.stack
    assert text.endswith(b"thread\n")
    found = [(start, end, protection) for start, end, protection, _ in maps_of(text[: -len(b"thread\n")])]
    letters = {1: "r--p", 3: "rw-p", 5: "r-xp"}
    special = [area for area in found if area[0] >= plan.special[0] and area[1] <= plan.special[1]]
    assert (special[0][0], special[-1][1]) == plan.special[:2]
    ours = [area for area in found if area not in special and area[0] < 1 << 47]
    assert ours == [(area.start, area.end, letters[area.protection]) for area in plan.areas]


def test_protection_is_set_after_the_reads(start: Start) -> None:
    """An area that nobody may write is filled all the same, also by reads that are not of one piece of the file."""
    plan, memory = plan_of("ot")
    at = FS - PAGE
    areas = [*plan.areas[:-1], Area(at, FS + 2 * PAGE, 1, flags=PROTECT)]
    plan = plan._replace(areas=areas, reads=((at, FS, 0), *plan.reads), fs=FS)
    assert start(plan, memory).stdout == b""
    plan = plan._replace(areas=[*plan.areas[:-1], Area(at, FS, 1, flags=PROTECT), Area(FS, FS + 2 * PAGE, 3)])
    assert start(plan, memory).stdout == b"ok\nthread\n"


def test_many_reads(start: Start) -> None:
    """There may be more reads than one call takes, in no order of the file, and gaps between them stay zero."""
    base, count = 0x50000000, 700
    plan, memory = plan_of("p", shown=(base, 2 * count * PAGE))
    areas = [*plan.areas, Area(base, base + 2 * count * PAGE, 3)]
    offset = len(memory)
    content = [bytes([number % 251]) * PAGE for number in range(count)]
    reads = [(base + 2 * n * PAGE, base + (2 * n + 1) * PAGE, offset + (n ^ 1) * PAGE) for n in range(count)]
    memory += b"".join(content)
    files = [plan.files[0]._replace(size=len(memory))]
    done = start(plan._replace(areas=areas, reads=[*plan.reads, *reads], files=files), memory)
    assert done.stdout == b"".join(content[number ^ 1] + bytes(PAGE) for number in range(count))


def test_files_of_the_program(start: Start, tmp_path: Path) -> None:
    """An area of a file outside of the snapshot is mapped if the file is what it was at the dump, else nothing is."""
    library = tmp_path / "library"
    library.write_bytes(b"x" * PAGE)
    status = library.stat()
    plan, memory = plan_of("om")
    area = Area(0x50000000, 0x50001000, 1, SHARED, 1)
    plan = plan._replace(areas=[*plan.areas, area])
    file = File(os.fsencode(library), PAGE, status.st_mtime_ns)
    done = start(plan._replace(files=[*plan.files, file]), memory)
    assert f"50000000-50001000 r--s 00000000 {os.major(status.st_dev):02x}".encode() in done.stdout
    assert done.stdout.startswith(b"ok\n")
    other = file.path + b".other"
    for changed in (file._replace(size=1), file._replace(mtime_ns=1), file._replace(path=other)):
        done = start(plan._replace(files=[*plan.files, changed]), memory)
        assert (done.returncode, done.stdout) == (126, b"")
        assert b"which the program has mapped, " in done.stderr


def flags_of(output: bytes) -> dict[int, set[str]]:
    """Return what the kernel says of areas in smaps, by their first addresses."""
    pattern = re.compile(r"^([0-9a-f]+)-[0-9a-f]+ .*?^VmFlags: ([a-z ]*)$", re.MULTILINE | re.DOTALL)
    return {int(start, 16): {*flags.split()} for start, flags in pattern.findall(output.decode())}


def test_flags_of_areas(start: Start) -> None:
    """Shared, growing, locked and advised areas are made as such."""
    plan, memory = plan_of("a")
    extra = [
        Area(0x50000000, 0x50010000, 3, flags=SHARED),
        Area(0x51000000, 0x51010000, 3, flags=LOCKED),
        Area(0x52000000, 0x52010000, 3, flags=NO_RESERVE, advice=1 << 10 | 1 << 15 | 1 << 16),
        Area(0x53000000, 0x53010000, 0),
    ]
    done = start(plan._replace(areas=[*plan.areas, *extra]), memory)
    assert (done.returncode, done.stderr) == (DONE, b"")
    flags = flags_of(done.stdout)
    assert "gd" in flags[STACK]
    assert "sh" in flags[0x50000000]
    assert "lo" in flags[0x51000000]
    assert {"nr", "dc", "nh", "dd"} <= flags[0x52000000]
    assert not {"rd", "wr", "ex"} & flags[0x53000000]
    assert not {"sh", "lo", "nr", "dc", "dd", "gd"} & flags[FS]


# ---- the vdso of another kernel ----------------------------------------------------


def another_vdso(commands: str, function: str, argument: int) -> tuple[Plan, bytes]:
    """Return the plan of a process of a kernel with another vdso, one function of which it calls."""
    special, content = vdso_of_here()
    symbols = symbols_of(content)
    plan, memory = plan_of(commands, shown=(special[2] + symbols[function], argument))
    doctored = bytearray(content)
    note = content.index(b"GNU\0")
    doctored[note + 4] ^= 255  # of the build id
    return plan._replace(vdso=bytes(doctored)), memory


def symbols_of(vdso: bytes) -> dict[str, int]:
    """Return where the functions of a vdso are."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(vdso)
        file.flush()
        table = output_of("readelf", "--dyn-syms", "-W", file.name)
    found = re.findall(r": (\w+) +\d+ FUNC +\w+ +\w+ +\d+ (\w+)@", table)
    return {name: int(value, 16) for value, name in found}


@pytest.mark.parametrize("function", ["__vdso_clock_gettime", "clock_gettime"])
def test_another_vdso(start: Start, function: str) -> None:
    """Its functions, at their old addresses, do what those of this kernel do, which are elsewhere."""
    before = time.monotonic()
    plan, memory = another_vdso("umv", function, time.CLOCK_MONOTONIC)
    done = start(plan, memory)
    assert (done.returncode, done.stderr) == (DONE, b"")
    seconds, nanoseconds = struct.unpack("<qq", done.stdout[-16:])
    assert before <= seconds + nanoseconds / 1e9 <= time.monotonic()
    areas = maps_of(done.stdout[:-16])
    copy = next(area for area in areas if area[0] == plan.special[2])
    assert copy[:3] == (*plan.special[2:], "r-xp")
    (own,) = [area for area in areas if area[3] == "[vdso]"]
    assert abs(own[0] - plan.special[2]) > 1 << 30


def test_another_vdso_in_which_a_thread_was(start: Start) -> None:
    """Its code goes on where it was, so only the same will do."""
    plan, memory = another_vdso("o", "clock_gettime", 1)
    done = start(plan._replace(in_vdso=1), memory)
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"a thread of the program was in the vdso of another kernel" in done.stderr


@pytest.mark.parametrize("damage", [b"\x7fELF", b"__vdso_time\0"])
def test_vdso_that_is_none(start: Start, damage: bytes) -> None:
    """What is no vdso, or has functions that nothing can replace, is refused."""
    plan, memory = plan_of("o")
    doctored = plan.vdso.replace(damage, damage.swapcase())
    assert doctored != plan.vdso
    done = start(plan._replace(vdso=doctored), memory)
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"the vdso of the dump " in done.stderr


def test_vdso_with_random_changes(start: Start) -> None:
    """Whatever is where symbols are, the loader reads nothing that is not there."""
    chance = random.Random(7)
    plan, memory = plan_of("o")
    for _ in range(40):
        doctored = bytearray(plan.vdso)
        for _ in range(chance.randrange(1, 6)):
            doctored[
                chance.choice([chance.randrange(64), chance.randrange(0x1D0, 0x400), 5600 + chance.randrange(1088)])
            ] = chance.randrange(256)
        done = start(plan._replace(vdso=bytes(doctored)), memory)
        assert (done.returncode, done.stdout) in {(DONE, b"ok\n"), (125, b"")}
