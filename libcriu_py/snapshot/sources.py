"""
The source files whose code a snapshot holds.

Copies keep the modules imported before the dump, and read the main module anew unless that took the checkpoint. After a
change to an imported module, they would silently run old code, which may not fit the new main module. Python looks at
the size and time of each file that it imports, and so does a start.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.program.main import absolute
from libcriu_py.program.preload import origin
from libcriu_py.snapshot.record import ComparedFile

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAIN = ("__main__", "__mp_main__")
more_path: list[str] = []
"""Directories in which modules were found that are not on `sys.path` until the program puts them there."""


class Loaded(NamedTuple):
    """What a process has imported, and from where."""

    names: list[str]
    """Of the modules."""
    paths: list[str | None]
    """What each says that it is from; None where it says nothing, or is frozen."""
    path: list[str]
    """`sys.path` as absolute paths, but what is the working directory of each copy."""


def loaded(*, path0: bool = True) -> Loaded:
    """
    Collect it, without a look at the files, and with little that is new in memory: it may be in the images.

    Args:
        path0: Whether the first entry of `sys.path` is a directory of the program, and not any working directory.
    """
    modules = list(sys.modules.items())
    entries: list[object] = [*sys.path]
    path = [entry for entry in entries[0 if path0 else 1 :] if isinstance(entry, str) and entry]
    path = [entry if entry[0] == "/" else os.path.abspath(entry) for entry in (*path, *more_path)]
    return Loaded([name for name, _ in modules], [_path(module) for _, module in modules], path)


def find(found: Loaded, *, main: bool) -> tuple[ComparedFile, ...]:
    """
    List the source files of this process's modules, except the standard library.

    Also left out: extension modules, which are compared as mapped files; modules that programs write to a temporary
    directory to load them; and this package, of which any version with the same record and protocol will do.

    Args:
        found: The modules.
        main: Whether to include the main module.

    Returns:
        An entry for each file, by path, with mtime in nanoseconds; for modules in a zip file, that file.
    """
    places = _Places(found.path)
    entries: dict[str, ComparedFile] = {}
    for name, given in zip(found.names, found.paths, strict=True):
        if given is None or name.partition(".")[0] == "libcriu_py" or (name in _MAIN and not main):
            continue
        path = _absolute(given)
        if path is None or path.endswith(".so") or path in entries:
            continue
        if places.is_in_library(path) or (name not in _MAIN and places.is_temporary(path)):
            continue
        file = _file(path)
        if file is not None:
            path, status = file
            entries[path] = ComparedFile(path, status.st_size, status.st_mtime_ns)
    return tuple(entries[path] for path in sorted(entries))


def compared(paths: Iterable[str]) -> tuple[ComparedFile, ...]:
    """Return entries of files."""
    found = ((path, os.stat(path)) for path in paths)
    return tuple(ComparedFile(path, status.st_size, status.st_mtime_ns) for path, status in found)


def _path(module: object) -> str | None:
    """
    Return the path that a module says it is from; None if it says none, or is frozen.

    Symbolic links are not resolved: a copy follows them too when it reads its main module.
    """
    try:
        # Not getattr, which would load lazy modules, and could run any code of an object posing as a module.
        known = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return None
    path = known.get("__file__") if isinstance(known, dict) else None
    if not isinstance(path, str) or not getattr(known.get("__spec__"), "has_location", True):
        return None
    return path


def _absolute(path: str) -> str | None:
    """Return the absolute path without resolving links; None if that needs a working directory that is gone."""
    try:
        return absolute(path)
    except OSError:
        return None


def _file(path: str) -> tuple[str, os.stat_result] | None:
    """Return the regular file at a path or above it, such as the zip file that holds a module."""
    while True:
        try:
            status = os.stat(path)
        except NotADirectoryError:
            path = os.path.dirname(path)
            continue
        except (OSError, ValueError):
            return None  # it is gone already, or was never there
        return (path, status) if stat.S_ISREG(status.st_mode) else None


class _Places:
    """Tells the files that count from those of the standard library, and from temporary ones."""

    def __init__(self, path: list[str]) -> None:
        self._temporary = tuple(map(_below, ("/tmp", "/var/tmp", os.environ.get("TMPDIR") or "/tmp")))  # noqa: S108
        # Celery takes the working directory out of sys.path again, from which it has imported the tasks.
        here = _absolute("")
        if here and not any(place.startswith(here) for place in self._temporary):
            path = [*path, here]
        importable = map(_absolute, path)
        self._importable = tuple(_below(entry) for entry in importable if entry is not None)
        self._known: dict[str, bool] = {}

    def is_in_library(self, path: str) -> bool:
        """Return whether a file belongs to the standard library."""
        directory = os.path.dirname(path)
        if directory not in self._known:
            self._known[directory] = origin(directory) == "library"
        return self._known[directory]

    def is_temporary(self, path: str) -> bool:
        """Return whether a file is one that a program (TensorFlow, torch) writes to load it, and may remove."""
        return path.startswith(self._temporary) and not _below(path).startswith(self._importable)


def _below(path: str) -> str:
    """Return the prefix of all paths in a directory."""
    return os.path.join(path, "")
