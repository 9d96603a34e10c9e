"""The plan that Python writes is the one that the launcher reads, and a damaged one is refused."""

from __future__ import annotations

import os
import random
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from libcriu_py.native import plan as format_of_plan
from libcriu_py.native.plan import AreaFlag, FileFlag, Kind, LockKind, PlanError

HEADER = Path(__file__).resolve().parents[3] / "libcriu_py" / "csrc" / "common" / "plan.h"
TIMEOUT = 60

LAYOUTS = {
    "header": format_of_plan.HEADER,
    "area": format_of_plan.AREA,
    "read": format_of_plan.READ,
    "file": format_of_plan.FILE,
    "descriptor": format_of_plan.DESCRIPTOR,
    "watch": format_of_plan.WATCH,
    "memory": format_of_plan.MEMORY,
    "lock": format_of_plan.LOCK,
    "timer": format_of_plan.TIMER,
    "listener": format_of_plan.LISTENER,
}
NAMES = {
    "PLAN_NO_FILE": format_of_plan.NO_FILE,
    "PLAN_ANY_SIZE": format_of_plan.ANY_SIZE,
    "PLAN_COMPONENTS": format_of_plan.COMPONENTS,
    "PLAN_FORMAT": format_of_plan.FORMAT,
    "PLAN_PAGE": format_of_plan.PAGE,
    **{
        f"PLAN_{name}": value
        for kind in (AreaFlag, FileFlag, Kind, LockKind)
        for name, value in vars(kind).items()
        if name[0] != "_"
    },
}
EXAMPLE = format_of_plan.Plan(
    xcr0=7,
    components=((0, 0), (0, 0), (576, 256), *[(0, 0)] * 29),
    special=(0x7000, 0xA000),
    vdso=(0x9000, 0xA000),
    vdso_content=b"vdso" * 1024,
    threads=2,
    in_vdso=True,
    monotonic=1,
    boottime=2,
    resume=0x20010,
    stack=0x31000,
    fs=0x30040,
    areas=(
        format_of_plan.Area(0x20000, 0x21000, 5, 0, 1, 0),
        format_of_plan.Area(0x30000, 0x32000, 3, AreaFlag.GROWS_DOWN, advice=1 << 10),
        format_of_plan.Area(0x32000, 0x33000, 1, AreaFlag.PROTECT),
    ),
    reads=(format_of_plan.Read(0x31000, 0x33000, 0x1000),),
    files=(
        format_of_plan.File(b"memory.img", 0x3000, 0, FileFlag.OF_SNAPSHOT),
        format_of_plan.File(b"/usr/bin/python3", 0x1234, -5),
    ),
    descriptors=(
        format_of_plan.Descriptor(3, Kind.REQUEST, close_on_exec=1),
        format_of_plan.Descriptor(4, Kind.PIPE, other=5, value=65536),
        format_of_plan.Descriptor(5, Kind.OTHER_END, os.O_NONBLOCK, other=4),
        format_of_plan.Descriptor(6, Kind.EPOLL),
        format_of_plan.Descriptor(7, Kind.DUPLICATE, other=4),
        format_of_plan.Descriptor(8, Kind.OPEN, data=b"/dev/null"),
    ),
    watches=(format_of_plan.Watch(6, 4, 0x19, 4),),
    locks=(format_of_plan.Lock(8, LockKind.POSIX, 1, 5, 7),),
)


def test_numbers_are_those_of_c(tmp_path: Path) -> None:
    """Structures have the sizes, and names the values, of csrc/common/plan.h."""
    sizes = "".join(f'printf("{name} %zu\\n", sizeof(struct plan_{name}));' for name in LAYOUTS)
    values = "".join(f'printf("{name} %llu\\n", (unsigned long long){name});' for name in NAMES)
    source = tmp_path / "sizes.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{ {sizes} {values} return 0; }}\n')
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    subprocess.run([*compiler, "-o", tmp_path / "sizes", source], check=True, timeout=TIMEOUT)
    lines = subprocess.run(
        [tmp_path / "sizes"], check=True, timeout=TIMEOUT, capture_output=True, text=True
    ).stdout.splitlines()
    found = {name: int(value) for name, value in map(str.split, lines)}
    assert found == {**{name: layout.size for name, layout in LAYOUTS.items()}, **NAMES}


def test_every_kind_and_flag_of_c_is_known() -> None:
    """Nothing is in the header's enumerations that Python lacks."""
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(encoding="ascii"), flags=re.DOTALL)
    enums = re.findall(r"enum plan_(?:area_flags|file_flags|descriptor_kind|lock_kind) \{(.*?)\}", text, re.DOTALL)
    assert len(enums) == 4
    assert {name for enum in enums for name in re.findall(r"PLAN_\w+", enum)} <= NAMES.keys()


def test_reads_what_was_written() -> None:
    """A plan is the same after it was written and read."""
    assert format_of_plan.decode(format_of_plan.encode(EXAMPLE)) == EXAMPLE


def test_magic_is_that_of_c() -> None:
    """A plan begins as the launcher expects."""
    (written,) = re.findall(r'define PLAN_MAGIC "(.*?)"', HEADER.read_text(encoding="ascii"))
    magic = written.encode("ascii").decode("unicode_escape").encode("latin-1") + b"\0"
    assert format_of_plan.encode(EXAMPLE).startswith(magic)


def test_cut_off_plan_is_refused() -> None:
    """Wherever a plan ends too early, it is refused."""
    data = format_of_plan.encode(EXAMPLE)
    for size in range(len(data)):
        with pytest.raises(PlanError):
            format_of_plan.decode(data[:size])


def test_damaged_plan_is_refused_or_read() -> None:
    """Damage never ends in another error than the refusal."""
    data = format_of_plan.encode(EXAMPLE)
    chance = random.Random(5)
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(data))] = chance.choice([0, 1, 0x7F, 0xFF, chance.randrange(256)])
        try:
            format_of_plan.decode(bytes(damaged))
        except PlanError:
            continue


CONTRADICTIONS: dict[str, dict[str, Any]] = {
    "areas overlap": {"areas": (*EXAMPLE.areas[:2], EXAMPLE.areas[1]._replace(start=0x31000, end=0x34000))},
    "areas overlap ": {"areas": (*EXAMPLE.areas, format_of_plan.Area(0x40001, 0x41000, 3))},
    "an area of an unknown file": {"areas": (format_of_plan.Area(0x20000, 0x21000, 5, file=9),), "reads": ()},
    "a stack of a file": {"areas": (EXAMPLE.areas[0]._replace(flags=AreaFlag.GROWS_DOWN),), "reads": ()},
    "an area of an unknown kind": {"areas": (EXAMPLE.areas[0]._replace(flags=1 << 9),), "reads": ()},
    "a read beside all areas": {"reads": (format_of_plan.Read(0x33000, 0x34000, 0),)},
    "a read into an area that is not writable": {"reads": (format_of_plan.Read(0x20000, 0x21000, 0),)},
    "a descriptor": {"descriptors": (format_of_plan.Descriptor(2, Kind.EPOLL),), "watches": (), "locks": ()},
    "a descriptor ": {"descriptors": (format_of_plan.Descriptor(3, 14),), "watches": (), "locks": ()},
    "a descriptor  ": {"descriptors": (EXAMPLE.descriptors[0],) * 2, "watches": (), "locks": ()},
    "the other end of a pair": {
        "descriptors": (*EXAMPLE.descriptors[:2], EXAMPLE.descriptors[3]),
        "watches": (),
        "locks": (),
    },
    "a pair without the other end": {"descriptors": EXAMPLE.descriptors[:2], "watches": (), "locks": ()},
    "a duplicate of what is not there": {"descriptors": (EXAMPLE.descriptors[4],), "watches": (), "locks": ()},
    "a lock": {"locks": (format_of_plan.Lock(6, LockKind.FLOCK, 1),)},
    "a lock ": {"locks": (format_of_plan.Lock(8, LockKind.FLOCK, 1, 1, 1),)},
    "a watch": {"watches": (format_of_plan.Watch(6, 9, 0x19, 4),)},
}


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_refused(what: str) -> None:
    """A plan whose parts do not fit each other is refused by name."""
    data = format_of_plan.encode(EXAMPLE._replace(**CONTRADICTIONS[what]))
    with pytest.raises(PlanError, match=what.strip()):
        format_of_plan.decode(data)


def test_number_that_does_not_fit_is_an_error() -> None:
    """What the format has no room for is not cut off."""
    with pytest.raises(PlanError, match="does not fit"):
        format_of_plan.encode(EXAMPLE._replace(stack=1 << 64))
