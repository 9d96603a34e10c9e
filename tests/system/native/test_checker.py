"""A plan that is not the process is never published, whatever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

PUBLISHER = """
import sys
sys.path += {places!r}
from libcriu_py.native import publish
from libcriu_py.native.plan import *
encode = publish.format_of_plan.encode

def change(items, wanted, **fields):
    place = next(n for n, item in enumerate(items) if wanted(item))
    return items[:place] + (items[place]._replace(**fields),) + items[place + 1:]

def tamper(p):
    areas, reads, files, descriptors = p.areas, p.reads, p.files, p.descriptors
    {tamper}
    return encode(p._replace(areas=areas, reads=reads, files=files, descriptors=descriptors))

publish.format_of_plan.encode = tamper
publish.main()
"""
BEFORE = """
import fcntl, select
f = open(sys.argv[0]); f.read(5); fcntl.flock(f, fcntl.LOCK_SH); g = open(sys.argv[0])
r, w = os.pipe(); e = select.epoll(); e.register(r); m = os.memfd_create("some"); os.write(m, b"content")
held = bytearray(b"x" * 50_000_000)

from libcriu_py.dump import native_engine
command = native_engine.publisher()
code = {code!r}.replace("{{places!r}}", repr([*map(str, sys.path)]))
native_engine.publisher = lambda: [*command[:-1], code]
"""
TAMPERED = {
    "is missing": "areas = areas[:7] + areas[8:]",
    "is not in the process": "areas = (*areas, Area(areas[-1].end + (1 << 30), areas[-1].end + (1 << 30) + 4096, 3))",
    "before all: is not in the process": "areas = (Area(1 << 20, (1 << 20) + 4096, 3), *areas)",
    "has another protection": "areas = change(areas, lambda a: a.protection == 1, protection=3)",
    "flags: has another protection, other flags": "areas = change(areas, lambda a: a.protection == 3, flags=4)",
    "advice: other flags or other advice": "areas = change(areas, lambda a: a.protection == 3, advice=1 << 14)",
    "growth: has another protection": "areas = change(areas, lambda a: a.flags & 2, flags=0)",
    "has other content": "areas = change(areas, lambda a: a.file == 0 and a.end - a.start > 1 << 20, offset=0)",
    "a read from elsewhere: has other content": "reads = change(reads, lambda r: r.offset, offset=0)",
    "the last byte of much memory: has other content": (
        "import os; held = max((a for a in areas if a.file == 0), key=lambda a: a.end - a.start)\n"
        "    image = os.open('memory.img', os.O_RDWR, dir_fd=6)\n"
        "    at = held.offset + held.end - held.start - 1\n"
        "    os.pwrite(image, bytes([os.pread(image, 1, at)[0] ^ 1]), at)"
    ),
    "no read: has other content": "reads = reads[1:]",
    "lacks its file": "areas = change(areas, lambda a: a.file > 0 and a.protection == 1, file=NO_FILE, offset=0)",
    "is of another file": ("areas = change(areas, lambda a: a.file > 0 and a.protection == 5, offset=0)"),
    "another path: is of another file": "files = (*files[:1], files[1]._replace(path=b'/usr/bin/env'), *files[2:])",
    "another size: is of another file": "files = (*files[:1], files[1]._replace(size=1), *files[2:])",
    "there is a guard region": (
        "areas = change(areas, lambda a: a.protection == 3, flags=32, file=NO_FILE, offset=0)\n"
        "    reads = tuple(r for r in reads if not any(a.flags & 32 and a.start <= r.start < a.end for a in areas))"
    ),
    "there is no memory for the code": "p = p._replace(resume=p.stack)",
    "there is no memory for the stack": "p = p._replace(stack=p.resume)",
    "is in one of plan and process only": "descriptors = tuple(d for d in descriptors if d.fd != {g})",
    "differs: another file": "descriptors = change(descriptors, lambda d: d.fd == {f}, value=6)",
    "other flags: differs": "descriptors = change(descriptors, lambda d: d.fd == {w}, flags=0o4000)",
    "closed by exec or is not": "descriptors = change(descriptors, lambda d: d.fd == {f}, close_on_exec=0)",
    "is no duplicate of": (
        "descriptors = change(descriptors, lambda d: d.fd == {g}, kind=Kind.DUPLICATE, other={f}, form=0, data=b'')"
    ),
    "watches: differs": "p = p._replace(watches=())",
    "of descriptor 8 has other content": (
        "descriptors = change(descriptors, lambda d: d.fd == {m}, data=MEMORY.pack(7, 4096, 0o777, 1) + b'some')"
    ),
    "other permissions or other seals": (
        "descriptors = change(descriptors, lambda d: d.fd == {m}, data=MEMORY.pack(7, 0, 0o777, 0) + b'some')"
    ),
    "memfd: another position or other flags": "descriptors = change(descriptors, lambda d: d.fd == {m}, value=6)",
    "memfd: differs: another file": (
        "descriptors = change(descriptors, lambda d: d.fd == {m}, data=MEMORY.pack(7, 0, 0o777, 1))"
    ),
    "the locks of descriptor": "p = p._replace(locks=())",
    "shared: the locks of descriptor": "p = p._replace(locks=change(p.locks, lambda _: True, is_exclusive=1))",
    "contradicts itself": "areas = areas[::-1]",
}


@pytest.mark.parametrize("sentence", TAMPERED)
def test_refuses_a_wrong_plan(sentence: str, dump: Run) -> None:
    """The dump fails with what differs, and nothing is published."""
    # The descriptors have these numbers in a program that has no others open.
    numbers = {"f": 3, "g": 4, "r": 5, "w": 6, "m": 8}
    tamper = TAMPERED[sentence]
    for name, number in numbers.items():
        tamper = tamper.replace(f"{{{name}}}", str(number))
    code = PUBLISHER.replace("{tamper}", tamper)
    outcome = dump(BEFORE.replace("{code!r}", repr(code)).replace("{{places!r}}", "{places!r}"))
    assert outcome.status == 1
    assert "CheckpointError: the native dump failed: " in outcome.errors
    assert sentence.rpartition(": ")[2] in outcome.errors.splitlines()[-1]
    assert not outcome.snapshot.exists()
