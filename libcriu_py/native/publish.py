"""
The publisher: a process of its own that makes a snapshot of what a dump has written, while the dumped process stands.

Its descriptors 3 to 7 are the order, the facts, the result, the directory and a pipe, whose other end is closed when
facts and memory are complete: it starts while they are being written. It ends with status 0, 10 where the process is
not eligible, or 11 after another error; the result has one sentence then.
"""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, NoReturn

from libcriu_py.memory.owners import Census
from libcriu_py.native import build, check, facts as written, plan as format_of_plan, regions
from libcriu_py.native.background import Background
from libcriu_py.native.facts import NotEligible, NotNow
from libcriu_py.snapshot import record
from libcriu_py.snapshot.manifest import MEMORY, write_records
from libcriu_py.snapshot.record import FileEntry
from libcriu_py.snapshot.staging import put_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.native.facts import Facts
    from libcriu_py.native.plan import Plan
    from libcriu_py.native.regions import Region
    from libcriu_py.snapshot.record import Launch

_ORDER, _FACTS, _RESULT, _DIRECTORY, _WRITTEN = 3, 4, 5, 6, 7
_VERSION = 1
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
    order = json.loads(_content(_ORDER))
    if order["version"] != _VERSION:
        message = "the order to the publisher is of another version of libcriu_py"
        raise ValueError(message)
    os.read(_WRITTEN, 1)
    if order["trial"]:
        build.refuse(written.parse(_content(_FACTS)))
        return
    image = os.open(MEMORY, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=_DIRECTORY)
    facts = written.parse(_content(_FACTS)).with_inherited(order["inherited"])
    with open(f"/proc/{facts.standing}/smaps", "rb", buffering=0) as file:
        smaps = file.readall()
    found = regions.parse(smaps)
    _wipe(image, facts, found.regions)
    settled = Background(image)
    launch = record.decode(base64.b64decode(order["launch"]))
    census = None if order["census"] is None else Census(*order["census"])
    built = build.build(facts, found, image, order["memory"], census)
    _refuse_changed(launch, built.plan)
    data = format_of_plan.encode(built.plan)
    ours = (_ORDER, _FACTS, _RESULT, _DIRECTORY, image)
    check.compare(data, smaps, image, facts, ours)
    _write_plan(data)
    os.fchmod(image, 0o400)  # copies map it: writing to it would change running ones
    files = {MEMORY: settled.result(), format_of_plan.PLAN: _entry(data)}
    # Not those of an earlier snapshot, whose place this one may take.
    mapped = {os.fsdecode(file.path) for file in built.plan.files}
    launch = launch._replace(pids=_tids(facts), mapped=tuple(one for one in launch.mapped if one.path in mapped))
    write_records(order["staging"], launch, {**order["manifest"], "memory": built.memory}, files)
    put_in_place(order["staging"], order["target"])
    if order["program"]:
        _tell(order["target"])


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


def _refuse_changed(launch: Launch, plan: Plan) -> None:
    """Refuse a file that has changed since what is recorded of it was read."""
    recorded = {os.fsencode(one.path): (one.size, one.mtime_ns) for one in launch.mapped}
    for file in plan.files:
        if recorded.get(file.path, (file.size, file.mtime_ns)) != (file.size, file.mtime_ns):
            message = f"{os.fsdecode(file.path)} was changed during the dump"
            raise ValueError(message)


def _tell(snapshot: str) -> None:
    from libcriu_py.snapshot import notices

    notices.taken(snapshot)
