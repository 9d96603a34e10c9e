"""
The packages whose code a snapshot holds, and the directories that they were imported from.

An upgrade of a package leaves copies with its old code, between new metadata and new data files. So a file of the
metadata of each imported package has to be as it was, its RECORD where it has one. And so have the names in each
directory of `sys.path`: those of all packages, which may be plugins, and those that could be imported in place of a
module of the snapshot. Others, as of what a program writes beside its script, may come and go.

A start looks at the directories' times (csrc/restore/installed.c) and at the rest only where one of them is another:
whoever installs a package makes, renames or removes the directory of its metadata.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.program.reads import hash_of
from libcriu_py.snapshot.record import ComparedFile

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from libcriu_py.snapshot.record import Launch
    from libcriu_py.snapshot.sources import Loaded

_METADATA = (b".dist-info", b".egg-info")
_COUNTED = (*_METADATA, b".egg-link", b".pth")
_OURS = frozenset({b"", b"__main__", b"__mp_main__", b"libcriu_py"})
_MASK = (1 << 64) - 1


class Installed(NamedTuple):
    """What is recorded."""

    names: tuple[str, ...]
    directories: tuple[ComparedFile, ...]
    packages: tuple[ComparedFile, ...]


def find(loaded: Loaded) -> Installed:
    """
    Find the directories of `sys.path`, and the packages of which modules were imported.

    Args:
        loaded: The modules.
    """
    tops = {
        os.fsencode(name.partition(".")[0]) for name in loaded.names if "/" not in name and "\0" not in name
    } - _OURS
    directories: list[ComparedFile] = []
    packages: list[ComparedFile] = []
    for path in dict.fromkeys(map(os.path.abspath, loaded.path)):
        try:
            # Before a look at its content: what changes meanwhile is to be a difference.
            status = os.stat(path)
            sum_of_names = _digest(path, tops)
        except OSError:
            continue  # it is not there, or a zip file
        directories.append(ComparedFile(path, sum_of_names, status.st_mtime_ns))
        inside = os.path.join(path, "")
        imported = {os.fsencode(file[len(inside) :]) for file in loaded.paths if file and file.startswith(inside)}
        packages += _packages(path, imported, tops)
    return Installed(tuple(map(os.fsdecode, sorted(tops))), tuple(directories), tuple(packages))


def hides(launch: Launch, path: Iterable[str]) -> bool:
    """
    Return whether a module of a snapshot would be found elsewhere with another sys.path.

    Args:
        launch: Its record.
        path: What is to be sys.path.
    """
    tops = {*map(os.fsencode, launch.names)}
    known = {directory.path for directory in launch.directories}
    sources = [os.fsencode(file.path) for file in launch.sources]
    for place in {*map(os.path.abspath, path)} - known:
        try:
            entries = list(os.scandir(os.fsencode(place)))
        except OSError:
            continue  # it is not there, or a zip file
        for entry in filter(lambda one: _could_be_imported(one, tops), entries):
            if not any(file == entry.path or file.startswith(entry.path + b"/") for file in sources):
                return True
    return False


def _digest(path: str, tops: Collection[bytes]) -> int:
    """Return the sum of hashes of the names that count, in whatever order they come."""
    with os.scandir(os.fsencode(path)) as entries:
        return sum(hash_of(entry.name) for entry in entries if _counts(entry, tops)) & _MASK


def _counts(entry: os.DirEntry[bytes], tops: Collection[bytes]) -> bool:
    """Return whether a name is of a package's metadata, or could be imported in place of a module of the snapshot."""
    return entry.name.endswith(_COUNTED) or _could_be_imported(entry, tops)


def _could_be_imported(entry: os.DirEntry[bytes], tops: Collection[bytes]) -> bool:
    name = entry.name
    top = name.partition(b".")[0]
    if top not in tops:
        return False
    rest = name[len(top) :]
    if not rest:
        return os.path.exists(os.path.join(entry.path, b"__init__.py"))
    return rest in {b".py", b".pyc"} or name.endswith(b".so")


def _packages(path: str, imported: Collection[bytes], tops: Collection[bytes]) -> Iterator[ComparedFile]:
    """Return a file of the metadata of each package in a directory of which a module was imported."""
    if not imported:
        return
    for name in sorted(os.listdir(path)):
        metadata = os.path.join(path, name)
        if not name.endswith((".dist-info", ".egg-info")):
            continue
        record = os.path.join(metadata, "RECORD")
        known = [os.path.join(metadata, other) for other in ("METADATA", "PKG-INFO")]
        of_tops = any(top in tops for top in _lines(os.path.join(metadata, "top_level.txt")))
        if any(line.partition(b",")[0] in imported for line in _lines(record)):
            yield from _compared([record])
        elif of_tops and not os.path.exists(record):
            yield from _compared([*known, metadata])


def _compared(candidates: Iterable[str]) -> Iterator[ComparedFile]:
    """Return the first regular file."""
    for path in filter(os.path.isfile, candidates):
        status = os.stat(path)
        yield ComparedFile(path, status.st_size, status.st_mtime_ns)
        return


def _lines(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from (line.rstrip(b"\r\n") for line in file)
    except OSError:
        return
