"""
The publisher: a process of its own that makes a snapshot of what a dump has written, while the dumped process stands.

Its descriptors 3 to 7 are the order, the facts, the result, the directory and a pipe that tells how far the dump is. It
starts before the dump, and does what it can while hooks run and memory is written. It ends with status 0, 10 where the
process is not eligible, or 11 after another error; the result has one sentence then.
"""

from __future__ import annotations

import base64
import json
import os
import struct
from typing import TYPE_CHECKING, NoReturn

from libcriu_py.memory import allocators
from libcriu_py.memory.owners import Census
from libcriu_py.native import build, check, facts as written, plan as format_of_plan, regions
from libcriu_py.native.background import Settling
from libcriu_py.native.facts import NotEligible, NotNow
from libcriu_py.snapshot import installed, record
from libcriu_py.snapshot.manifest import MEMORY, write_records
from libcriu_py.snapshot.record import ComparedFile, FileEntry
from libcriu_py.snapshot.sources import Loaded
from libcriu_py.snapshot.staging import put_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.native.facts import Facts
    from libcriu_py.native.plan import Plan
    from libcriu_py.native.regions import Region

_ORDER, _FACTS, _RESULT, _DIRECTORY, _STAGES = 3, 4, 5, 6, 7
_VERSION = 1
_STAGE = struct.Struct("=i")
_NOT_ELIGIBLE, _FAILED, _NOT_NOW = 10, 11, 12


def main() -> NoReturn:
    """Publish, and end this process."""
    status, sentence = 0, ""
    try:
        _publish()
    except NotEligible as refusal:
        status, sentence = _NOT_NOW if isinstance(refusal, NotNow) else _NOT_ELIGIBLE, refusal.reason
    except Exception as error:  # noqa: BLE001 - the dumped process tells of it
        from libcriu_py.errors import in_words

        status, sentence = _FAILED, in_words(error) or repr(error)
    os.pwrite(_RESULT, " ".join(sentence.split()).encode("utf-8", "backslashreplace"), 0)
    # Nothing is left to be done at exit, and what the checker has mapped need not be unmapped first.
    os._exit(status)


def _publish() -> None:
    allocators.look_ahead(os.getppid())
    _await_stage()
    order = json.loads(_content(_ORDER))
    if order["version"] != _VERSION:
        message = "the order to the publisher is of another version of libcriu_py"
        raise ValueError(message)
    if order["trial"]:
        _await_stage()
        _await_stage()
        build.refuse(written.parse(_content(_FACTS)))
        return
    with open(f"/proc/{_await_stage()}/smaps", "rb", buffering=0) as file:
        smaps = file.readall()
    found, to_compare = regions.parse(smaps), check.parse(smaps)
    packages = installed.find(Loaded(*order["loaded"]))
    _await_stage()
    image = os.open(MEMORY, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=_DIRECTORY)
    facts = written.parse(_content(_FACTS)).with_inherited(order["inherited"])
    _wipe(image, facts, found.regions)
    settled = Settling(image)
    census = None if order["census"] is None else Census(*order["census"])
    built = build.build(facts, found, image, order["memory"], census)
    data = format_of_plan.encode(built.plan)
    ours = (_ORDER, _FACTS, _RESULT, _DIRECTORY, _STAGES, image)
    check.compare(data, to_compare, image, facts, ours)
    _write_plan(data)
    os.fchmod(image, 0o400)  # copies map it: writing to it would change running ones
    files = {MEMORY: settled.result(), format_of_plan.PLAN: _entry(data)}
    launch = record.decode(base64.b64decode(order["launch"]))
    launch = launch._replace(pids=_tids(facts), mapped=_mapped(built.plan), **packages._asdict())
    write_records(order["staging"], launch, {**order["manifest"], "memory": built.memory}, files)
    put_in_place(order["staging"], order["target"])
    if order["program"]:
        _tell(order["target"])


def _await_stage() -> int:
    """
    Wait until the order is there, the process stands still, or its memory is written.

    Returns:
        The pid of the process that stands still, the second time.
    """
    stage = os.read(_STAGES, _STAGE.size)
    if len(stage) != _STAGE.size:
        message = "the process that was to be dumped has ended, or the dump has failed"
        raise EOFError(message)
    return int(_STAGE.unpack(stage)[0])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _wipe(image: int, facts: Facts, found: Sequence[Region]) -> None:
    """Overwrite what a fork would not leave to a child, such as the state of generators: it must be in no file."""
    wiped = [(region.start, region.end) for region in found if region.is_wiped]
    for start, end, offset in facts.runs:
        if any(low <= start < high for low, high in wiped):
            os.pwrite(image, bytes(end - start), offset)


def _entry(data: bytes) -> FileEntry:
    from libcriu_py.linux import checksum

    return FileEntry(len(data), checksum.sum_bytes(data))


def _write_plan(data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(format_of_plan.PLAN, flags, 0o600, dir_fd=_DIRECTORY), "wb") as file:
        file.write(data)


def _tids(facts: Facts) -> tuple[int, ...]:
    return tuple(sorted(thread.tid for thread in facts.threads))


def _mapped(plan: Plan) -> tuple[ComparedFile, ...]:
    """Return the mapped files, by path; of memory from an earlier snapshot, nothing is needed any more."""
    without_name = format_of_plan.FileFlag.OF_SNAPSHOT | format_of_plan.FileFlag.OF_MEMFD
    files = {os.fsdecode(one.path): one for one in plan.files if not one.flags & without_name}
    return tuple(
        ComparedFile(path, one.size, one.mtime_ns, os.stat(path).st_mode) for path, one in sorted(files.items())
    )


def _tell(snapshot: str) -> None:
    from libcriu_py.snapshot import notices

    notices.taken(snapshot)
