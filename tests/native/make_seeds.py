"""Write the fuzzer's launch records anew, after a change to their format: ``python -m tests.native.make_seeds``."""

from __future__ import annotations

from pathlib import Path

from libcriu_py.program.main import Program
from libcriu_py.program.reads import Read
from libcriu_py.snapshot import record as launch_record
from libcriu_py.snapshot.record import ComparedFile, FileEntry, Launch, MemoryFile

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
)

if __name__ == "__main__":
    seeds = Path(__file__).with_name("seeds")
    for name, kind in (("record", b"b"), ("record-repaired", b"c")):
        (seeds / name).write_bytes(kind + launch_record.encode(LAUNCH))
