"""One standing process dumped both ways: what criu finds in it is what the native plan has."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.criu.options import DumpOptions
from libcriu_py.images import readers
from libcriu_py.native import plan as format_of_plan
from libcriu_py.native.plan import NO_FILE, PAGE, AreaFlag, FileFlag, Kind, Plan
from tests.system.native.conftest import BEGINNING

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="criu dumps the process of another, which needs root")

PUBLISHER = """
import json, os, sys, time
sys.path += {places!r}
from libcriu_py.native import facts as written, publish
stages = [publish._await_stage() for _ in range(3)]
publish._await_stage = iter(stages).__next__
facts = written.parse(publish._content(publish._FACTS))
with open("{place}/standing.new", "w") as file:
    json.dump([facts.standing, list(facts.scratch)], file)
os.rename("{place}/standing.new", "{place}/standing")
while not os.path.exists("{place}/dumped"):
    os.kill(facts.standing, 0)
    time.sleep(0.01)
publish.main()
"""
PROGRAM = """
import select
from libcriu_py.dump import native_engine
code = {code!r}.replace("{{places!r}}", repr([*map(str, sys.path)]))
command = native_engine.publisher()
native_engine.publisher = lambda: [*command[:-1], code]

for _ in range(3):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
threading.Thread(target=ctypes.CDLL(None).poll, args=(None, 0, 100_000), daemon=True).start()
held = os.urandom(9_000_000) + bytes(5_000_000)
private = mmap.mmap(os.open("/usr/bin/env", os.O_RDONLY), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
private[5000:5004] = b"mine"
empty = mmap.mmap(-1, 1 << 26)
hole = mmap.mmap(-1, 1 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
hole[5 * 4096] = 1
ctypes.CDLL(None).mprotect(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(hole)) + 8192), 4096, 0)
file = open(sys.argv[0]); file.seek(5)
again = os.dup(file.fileno())
r, w = os.pipe(); os.write(w, b"in the pipe")
a, b = socket.socketpair()
poll = select.epoll(); poll.register(r)
counter = ctypes.CDLL(None).eventfd(7, 0o2000000)
server = socket.create_server(("127.0.0.1", 0))
print(server.fileno(), flush=True)
# The twin stands: the program itself has a child with its memory, which keeps the publisher, and criu refuses that.
with checkpoint(sys.argv[1], engine="native", then="continue"):
    pass
"""
PRESENT = 4
"""A bit of a pagemap entry (criu/include/pagemap.h)."""
SPECIAL = {"vdso", "vvar", "vsyscall"}
KINDS = {
    Kind.SOCKET_PAIR: "unix-socket",
    Kind.PIPE: "pipe",
    Kind.EPOLL: "epoll",
    Kind.EVENTFD: "eventfd",
    Kind.LISTENER: "inet-socket",
}


class Both(NamedTuple):
    """The two dumps."""

    plan: Plan
    memory: bytes
    images: Path
    pid: int
    scratch: tuple[int, int]
    last_fd: int
    """The highest descriptor of the program."""

    def mappings(self) -> list[readers.Mapping]:
        """Return what criu has found, without what is no part of a snapshot."""
        start, end = self.scratch
        found = readers.memory(self.images, self.pid)
        return [one for one in found if one.kind not in SPECIAL and not start <= one.start < end]


@pytest.fixture(scope="module", name="both")
def both_fixture(tmp_path_factory: pytest.TempPathFactory) -> Both:
    """Let a program stand still for its own dump, and criu dump it meanwhile."""
    place = tmp_path_factory.mktemp("both")
    code = PUBLISHER.replace("{place}", str(place))
    script, images = place / "program.py", place / "images"
    script.write_text(BEGINNING + PROGRAM.replace("{code!r}", repr(code)).replace("{{", "{").replace("}}", "}"))
    images.mkdir()
    argv = [sys.executable, str(script), str(place / "snap")]
    with (
        (place / "said").open("wb") as said,
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True) as program,
    ):
        while not (place / "standing").exists():
            assert program.poll() is None, (place / "said").read_text()
            time.sleep(0.01)
        pid, scratch = json.loads((place / "standing").read_text())
        options = DumpOptions(images_dir=images, pid=pid, leave_running=True, shell_job=True)
        try:
            Criu().dump(options)
        finally:
            (place / "dumped").touch()
    assert program.returncode == 0, (place / "said").read_text()
    plan = format_of_plan.decode((place / "snap" / format_of_plan.PLAN).read_bytes())
    memory = (place / "snap" / "memory.img").read_bytes()
    return Both(plan, memory, images, pid, tuple(scratch), int((place / "said").read_text().split()[0]))


def our_areas(both: Both) -> dict[int, tuple[object, ...]]:
    """Return protection, sharing, file and offset of each page in the plan."""
    found: dict[int, tuple[object, ...]] = {}
    for area in both.plan.areas:
        file = None if area.file == NO_FILE else both.plan.files[area.file]
        path = "" if file is None or file.flags & FileFlag.OF_SNAPSHOT else os.fsdecode(file.path)
        for page in range(area.start, area.end, PAGE):
            offset = area.offset + page - area.start if path else 0
            found[page] = area.protection, bool(area.flags & AreaFlag.SHARED), path, offset
    return found


def their_areas(both: Both) -> dict[int, tuple[object, ...]]:
    """Return the same of criu's images."""
    found: dict[int, tuple[object, ...]] = {}
    for one in both.mappings():
        for page in range(one.start, one.end, PAGE):
            offset = one.offset + page - one.start if one.path else 0
            found[page] = one.protection, bool(one.flags & mmap.MAP_SHARED), one.path, offset
    return found


def our_pages(both: Both) -> dict[int, bytes]:
    """Return the content of each page that a native copy has from `memory.img`."""
    found = {}
    for area in both.plan.areas:
        if area.file != NO_FILE and both.plan.files[area.file].flags & FileFlag.OF_SNAPSHOT:
            for page in range(area.start, area.end, PAGE):
                offset = area.offset + page - area.start
                found[page] = both.memory[offset : offset + PAGE]
    for read in both.plan.reads:
        for page in range(read.start, read.end, PAGE):
            offset = read.offset + page - read.start
            found[page] = both.memory[offset : offset + PAGE]
    return found


def their_pages(both: Both) -> dict[int, bytes]:
    """Return the content of each page in criu's images."""
    head, *runs = readers.read_entries(both.images / f"pagemap-{both.pid}.img", "pagemap")
    content = (both.images / f"pages-{int(head[1][0])}.img").read_bytes()
    found, offset = {}, 0
    for run in runs:
        if not int(run[4][0]) & PRESENT:
            continue
        start, count = int(run[1][0]), int(run.get(5, run[2])[0])
        for page in range(start, start + count * PAGE, PAGE):
            found[page] = content[offset : offset + PAGE]
            offset += PAGE
    assert offset == len(content)
    return found


def in_file(area: tuple[object, ...]) -> bytes:
    """Return what a page has that is in neither: the file's content, or zeros."""
    _, _, path, offset = area
    if not path:
        return bytes(PAGE)
    with open(str(path), "rb") as file:
        return os.pread(file.fileno(), PAGE, int(str(offset))).ljust(PAGE, b"\0")


def test_areas(both: Both) -> None:
    """Both cover the same memory, with the same protection, sharing and files."""
    ours, theirs = our_areas(both), their_areas(both)
    # A page of a file that was written to may be in the snapshot, whatever mapped it: its content is compared below.
    for page in ours.keys() & theirs.keys():
        if not ours[page][2]:
            theirs[page] = (*theirs[page][:2], "", 0)
    different = {page for page in ours.keys() | theirs.keys() if ours.get(page) != theirs.get(page)}
    assert not [(hex(page), ours.get(page), theirs.get(page)) for page in sorted(different)][:20]
    assert len(ours) > 20_000


def test_content(both: Both) -> None:
    """Each page has the same bytes, wherever a copy gets it from."""
    areas, ours, theirs = their_areas(both), our_pages(both), their_pages(both)
    assert ours.keys() <= areas.keys()
    different = []
    for page, area in areas.items():
        base = in_file(area) if page not in ours or page not in theirs else b""
        if ours.get(page, base) != theirs.get(page, base):
            different.append(page)
    assert not [(hex(page), areas[page], page in ours, page in theirs) for page in different][:20]
    assert len(theirs) > 3_000


def test_descriptors(both: Both) -> None:
    """Both have the same descriptors, but for the package's own, and files at the same positions."""
    theirs = {one.fd: one.file for one in readers.descriptors(both.images, both.pid)}
    ours = {one.fd: one for one in both.plan.descriptors if one.kind != Kind.REQUEST}
    used = range(3, both.last_fd + 1)
    assert sorted(ours) == [*used]
    for fd in used:
        one, kind = ours[fd], theirs[fd].kind
        if one.kind == Kind.DUPLICATE:
            assert theirs[fd] == theirs[one.other]
        elif one.kind == Kind.OTHER_END:
            assert kind == theirs[one.other].kind
        elif one.kind == Kind.OPEN:
            found = readers.OpenFile(theirs[fd].id, "file", os.fsdecode(one.data), one.other_offset, one.value)
            assert theirs[fd] == found
        else:
            assert kind == KINDS[one.kind]
