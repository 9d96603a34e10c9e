"""Write the fuzzer's launch records and plans anew, after a change of format: ``python -m tests.native.make_seeds``."""

from __future__ import annotations

import struct
from pathlib import Path

from libcriu_py.native.plan import ANY_SIZE, MEMORY, PAGE, Descriptor, File, Lock
from libcriu_py.program.main import Program
from libcriu_py.program.reads import Read
from libcriu_py.snapshot import record as launch_record
from libcriu_py.snapshot.record import ComparedFile, FileEntry, Launch, Listener, MemoryFile
from tests.plans import (
    DUPLICATE,
    EPOLL,
    LISTENER,
    MEMFD,
    OPEN,
    OTHER_END,
    PIPE,
    REQUEST,
    TIMERFD,
    plan_of,
)

LAUNCH = Launch(
    command=("/bin/echo", "a"),
    program=Program("script", "x.py"),
    arch="x86_64",
    cpu_flags=("fpu", "sse"),
    variables={"PYTHONHASHSEED": ""},
    uid=0,
    gid=0,
    groups=(0, 1),
    capabilities=1,
    reduced_bounding=True,
    mode="root",
    session_leader=True,
    slots=("0", "1", "2", "3"),
    images_key="i",
    restore_options={"tcp_close": True, "cpu_cap": 1},
    pids=(7, 8),
    memory_files=(MemoryFile("memory.img", "m", 4096), MemoryFile("memory/x", "x", 4096)),
    maps_code=True,
    files={"images/core-7.img": FileEntry(9)},
    mapped=(ComparedFile("/lib/x.so", 1, 2, 0o100644),),
    sources=(ComparedFile("/x.py", 1, 2),),
    names=("json", "sys"),
    directories=(ComparedFile("/etc", 1, 2),),
    reads=(Read("A", "B", 1), Read("C", "", 0)),
    engine="native",
    packages=(ComparedFile("/x.dist-info/RECORD", 1, 2),),
    listeners=(Listener("127.0.0.1", 2, 1, 80, 1),),
)


def small_vdso() -> bytes:
    """Return a page that is a vdso as far as the loader looks: an ELF header, sections, and two functions."""
    names = b"\0__vdso_time\0getrandom\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 2, 0, 1, 512, 64) + struct.pack("<IBBHQQ", 13, 2, 0, 1, 576, 64)
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 11, 2, 256, 256, len(symbols), 2, 1, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 2, 400, 400, len(names), 0, 0, 1, 0)
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 0, 1024, 0, 64, 56, 0, 64, 3, 0)
    page = bytearray(PAGE)
    for offset, content in ((0, header), (256, symbols), (400, names), (1024, sections)):
        page[offset : offset + len(content)] = content
    return bytes(page)


PLAN = plan_of()[0]._replace(
    files=(*plan_of()[0].files, File(b"/memfd:name", 5, flags=6, descriptor=12)),
    special=(0x7FFF00000000, 0x7FFF00002000, 0x7FFF00001000, 0x7FFF00002000),
    vdso=small_vdso(),
    descriptors=(
        Descriptor(3, REQUEST, 2),
        Descriptor(4, OPEN, 0, other_offset=ANY_SIZE, data=b"/dev/null"),
        Descriptor(5, DUPLICATE, other=1),
        Descriptor(6, PIPE, 0, 7, value=65536, data=b"queued"),
        Descriptor(7, OTHER_END, 1),
        Descriptor(8, EPOLL, 2),
        Descriptor(9, TIMERFD, 2, value=1, data=bytes(24)),
        Descriptor(10, LISTENER, 2, value=2 << 32 | 1 << 16, data=bytes(24)),
        Descriptor(11, LISTENER, 2, value=1 << 32 | 1 << 16, other_offset=0o755, data=bytes(8) + b"\1\0/x"),
        Descriptor(12, MEMFD, 2, value=1, data=MEMORY.pack(5, 4096, 0o777, 1) + b"name"),
        Descriptor(13, MEMFD, 0, 12, data=MEMORY.pack(5, 4096, 0o777, 1) + b"name"),
    ),
    watches=((8, 6, 1, 0),),
    locks=(Lock(4, 2, 1, 5, 7),),
)

if __name__ == "__main__":
    seeds = Path(__file__).with_name("seeds")
    for name, kind in (("record", b"b"), ("record-repaired", b"c")):
        (seeds / name).write_bytes(kind + launch_record.encode(LAUNCH))
    for name, kind in (("plan", b"p"), ("plan-vdso", b"v")):
        (seeds / name).write_bytes(kind + PLAN.encode())
