"""Flipped bytes, and files that are something else, in a snapshot that was sound before."""

from __future__ import annotations

import os
import random
import shutil
import socket
from functools import partial
from typing import TYPE_CHECKING

from tests.faults import program, verdict
from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.faults.place import Place

SHAPES = ("fifo", "directory", "socket", "link", "empty", "huge", "foreign", "missing")
_LOGS = {"dump.log"}
"""What is for people only, and has no sum."""
_OTHER_USER = 12345


def cases(count: int, seed: int, base: Path, *, every: int = 1) -> Iterator[tuple[str, Callable[[Place], Judgement]]]:
    """
    Yield all cases, each with its row.

    Args:
        count: How many bytes are flipped.
        seed: Of their places.
        base: The shared directory.
        every: Of how many shapes of files one is tried.
    """
    numbers = random.Random(seed)
    snapshot = base / "mapped"
    files = sorted(path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file())
    sound = [name for name in files if name not in _LOGS and (snapshot / name).stat().st_size]
    for number in range(count):
        name = sound[number % len(sound)]
        offset = numbers.randrange((snapshot / name).stat().st_size)
        yield "flipped byte, `run`", partial(_flip, name, offset, numbers.randrange(8), "run")
        yield "flipped byte, `verify`", partial(_flip, name, offset, numbers.randrange(8), "verify")
    for number, (name, shape) in enumerate((name, shape) for name in files for shape in SHAPES):
        if number % every == 0:
            yield f"file is {shape}", partial(_reshape, name, shape)


def _copy(place: Place) -> Path:
    """Have a copy in the place of the shared snapshot, and let it be found sound."""
    copy = place.directory / "copy"
    shutil.copytree(place.base / "mapped", copy, symlinks=True)
    place.bind(copy, place.base / "mapped")
    snapshot = place.base / "mapped"
    done = place.run([*program.OURS, "verify", snapshot])
    assert done.status == 0, done
    return snapshot


def _flip(name: str, offset: int, bit: int, how: str, place: Place) -> Judgement:
    path = _copy(place) / name
    status = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(offset)
        (value,) = file.read(1)
        file.seek(offset)
        file.write(bytes([value ^ 1 << bit]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.chmod(status.st_mode)
    judgement = _started(place) if how == "run" else _verified(place, name)
    return judgement._replace(detail=f"{name} at {offset}: {judgement.detail}")


def _started(place: Place) -> Judgement:
    return verdict.of_start(place.run(program.start_command(place.base / "mapped")), program.expected(place.base))


def _verified(place: Place, name: str) -> Judgement:
    """Judge `verify`, which has to name the file."""
    ran = place.run([*program.OURS, "verify", place.base / "mapped"])
    bad = verdict.of_command(ran)
    if bad is not None:
        return bad
    if ran.status == 1 and name in ran.err:
        return Judgement(Verdict.RIGHT, ran.err.strip())
    return Judgement(Verdict.WRONG if ran.status == 0 else Verdict.ERROR, verdict.told(ran))


def _reshape(name: str, shape: str, place: Place) -> Judgement:
    """Start a copy, and let the other commands read the snapshot."""
    path = _copy(place) / name
    kept = place.directory / "kept"
    shutil.copy2(path, kept)
    path.unlink()
    _make(path, kept, shape)
    judgement = _started(place)
    for command in ("verify", "inspect"):
        bad = verdict.of_command(place.run([*program.OURS, command, place.base / "mapped"]))
        judgement = judgement if bad is None else bad
    return judgement._replace(detail=f"{name}: {judgement.detail}")


def _make(path: Path, kept: Path, shape: str) -> None:
    """Make something else in the place of a file."""
    if shape == "fifo":
        os.mkfifo(path, 0o600)
    elif shape == "directory":
        path.mkdir()
    elif shape == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    elif shape == "link":
        path.symlink_to(kept)
    elif shape == "empty":
        path.touch(0o600)
    elif shape == "huge":
        shutil.copy2(kept, path)
        path.chmod(0o600)
        os.truncate(path, 1 << 33)
    elif shape == "foreign":
        shutil.copy2(kept, path)
        os.chown(path, _OTHER_USER, _OTHER_USER)
