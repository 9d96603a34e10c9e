"""A full disk, and a limit on the size of files, at every write of snapshot, optimize and store."""

from __future__ import annotations

import re
import resource
from functools import partial
from typing import TYPE_CHECKING

from tests.faults import program, targets, verdict
from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.place import Place, Ran
    from tests.faults.targets import Call

_WRITES = "write,pwrite64,writev,splice,sendfile,copy_file_range,ftruncate,fallocate,mkdir,rename,renameat2,link,linkat"
COMMANDS = ("optimize", "store")
_ABOUT = re.compile(rf"\b({_WRITES.replace(',', '|')})\(.*/tmp/case/")
_OF_DUMP = ("pwrite64", "ftruncate", "mkdir", "rename", "renameat2", "fsync")
"""Those of a native dump but for write(2), by which everybody speaks."""
_ROOM = 1 << 30
_MEGABYTES = 24
"""More than a snapshot of the program takes while it is made."""


def cases(count: int, base: Path, *, by_criu: bool) -> Iterator[tuple[str, Callable[[Place], Judgement]]]:
    """
    Yield all cases, each with its row.

    Args:
        count: How many sizes of disks and files there are, and how many writes of each command fail.
        base: The shared directory.
        by_criu: Whether criu dumps; else the process itself does.
    """
    for number in range(count):
        size = (number + 1) * _MEGABYTES * 1_000_000 // count
        yield "disk full in snapshot", partial(_small_disk, size)
        yield "files limited in snapshot", partial(_small_files, size)
        if not by_criu:
            yield "write fails in snapshot", partial(_failed_write_of_dump, number)
            continue
        yield "write of criu fails in snapshot", partial(_failed_write_of_criu, number + 1)
        for name in COMMANDS:
            writes = targets.calls((base / f"write-{name}.log").read_text(encoding="utf-8"), about=_ABOUT)
            call = writes[round(number * (len(writes) - 1) / max(1, count - 1))]
            yield f"write fails in {name}", partial(_failed_write, name, call)
            yield f"disk full in {name}", partial(_filled_disk, name, number / count)


def _small_disk(size: int, place: Place) -> Judgement:
    """Make a snapshot on a file system that has room for a part of it, and again when there is room."""
    snap = place.mount_disk(size) / "snap"
    ran = place.run(program.snapshot_command(place, snap, "--memory", "map"))
    place.mount_disk(_ROOM)
    return _made(place, ran, snap)


def _small_files(size: int, place: Place) -> Judgement:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 4, size // 4))

    snap = place.directory / "snap"
    return _made(place, place.run(program.snapshot_command(place, snap, "--memory", "map"), prepare=limit), snap)


def _failed_write_of_criu(nth: int, place: Place) -> Judgement:
    options = f"-e trace={_WRITES} -e inject={_WRITES}:error=ENOSPC:when={nth * nth}"
    (place.directory / "inject").write_text(options, encoding="ascii")
    snap = place.directory / "snap"
    ran = place.run(program.snapshot_command(place, snap))
    (place.directory / "inject").unlink()
    return _made(place, ran, snap)


def _failed_write_of_dump(number: int, place: Place) -> Judgement:
    """Let the nth call of a name fail in whichever process comes to it."""
    snap = place.directory / "snap"
    nth, which = divmod(number, len(_OF_DUMP))
    options = ["-e", f"trace={_OF_DUMP[which]}", "-e", f"inject={_OF_DUMP[which]}:error=ENOSPC:when={nth + 1}"]
    command = program.snapshot_command(place, snap)
    return _made(place, place.run(["strace", "-D", "-qq", "-f", "-o", "/dev/null", *options, *command]), snap)


def _made(place: Place, ran: Ran, snap: Path) -> Judgement:
    """Judge a snapshot, and that what was wrong is told."""
    judgement = program.of_snapshot(place, ran, snap)
    words = ("No space", "too large", "File size", "ENOSPC", "space left", "RLIMIT_FSIZE", "limit")
    if judgement.verdict is Verdict.ERROR and not any(word in ran.err for word in words):
        return judgement._replace(detail=f"without the true reason: {judgement.detail}")
    return judgement


def command(name: str, directory: Path, place: Place) -> list[object]:
    """Make a snapshot in a directory, and return the command that changes it there."""
    snap = directory / "snap"
    made = place.run(program.snapshot_command(place, snap, "--replace", "--memory", "copy"))
    assert made.status == 0, made
    return [*program.OURS, "optimize", "--memory", "map", *(["--store", directory / "store"] * (name == "store")), snap]


def _failed_write(name: str, call: Call, place: Place) -> Judgement:
    """Let one system call that writes to the snapshot or the store fail."""
    changing = command(name, place.directory, place)
    options = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:error=ENOSPC:when={call.nth}"]
    ran = place.run(["strace", "-D", "-qq", "-f", "-o", "/dev/null", *options, *changing])
    return _changed(place, ran, place.directory / "snap", changing)


def _filled_disk(name: str, share: float, place: Place) -> Judgement:
    """Leave a share of the space that a command needs."""
    disk = place.mount_disk(_ROOM)
    changing = command(name, disk, place)
    used = sum(path.stat().st_blocks * 512 for path in disk.rglob("*"))
    place.mount_disk(used + int(share * used))
    ran = place.run(changing)
    place.mount_disk(_ROOM)
    return _changed(place, ran, disk / "snap", changing)


def _changed(place: Place, ran: Ran, snap: Path, changing: list[object]) -> Judgement:
    """Judge a command that changes a snapshot: that works before and after, and the command does the next time."""
    bad = verdict.of_command(ran)
    if bad is not None:
        return bad
    started = verdict.of_start(place.run(program.start_command(snap)), program.expected(place.base))
    if started.verdict is not Verdict.RIGHT:
        return Judgement(Verdict.WRONG, f"{verdict.told(ran)}; the snapshot does not work: {started}")
    again = place.run(changing)
    if again.hung or (again.status and ran.status):
        return Judgement(Verdict.WRONG, f"{verdict.told(ran)}; the next command fails: {verdict.told(again)}")
    return Judgement(Verdict.RIGHT if ran.status == 0 else Verdict.ERROR, verdict.told(ran))
