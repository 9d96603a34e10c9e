"""
The user's own source files whose code a snapshot holds.

Copies have the modules that were imported before the dump, and read their main module anew unless that asked for the
checkpoint: after a change to one of the former the two may not go together, and the old code would run without a word.
"""

from __future__ import annotations

import os
import stat
import sys

from libcriu_py.program.main import absolute
from libcriu_py.snapshot.record import ComparedFile

_MAIN = ("__main__", "__mp_main__")
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def own_sources(*, main: bool) -> tuple[ComparedFile, ...]:
    """
    List the files of the modules of this process, those of the standard library and of installed packages left out.

    So are extension modules, which are mapped; what programs write into a temporary directory to load it from there;
    and this package: a copy goes with another version of it as long as record and protocol are the same.

    Args:
        main: Whether the main module is one of them.

    Returns:
        One entry a file, in order of their paths, with size and mtime in nanoseconds; the zip file for what is in one.
    """
    places = _Places()
    entries: dict[str, ComparedFile] = {}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "libcriu_py" or (name in _MAIN and not main):
            continue
        path = _path(module)
        if path is None or path.endswith(".so") or path in entries:
            continue
        if places.is_installed(path) or (name not in _MAIN and places.is_temporary(path)):
            continue
        found = _file(path)
        if found is not None:
            path, status = found
            entries[path] = ComparedFile(path, status.st_size, status.st_mtime_ns)
    return tuple(entries[path] for path in sorted(entries))


def _path(module: object) -> str | None:
    """
    Return the path that a module says it is from, absolute; None where it says none, or is frozen.

    Symbolic links stay: a copy's main module is read by way of them, too.
    """
    try:
        # Not getattr: it would have lazy modules load, and what stands in for a module do anything.
        known = object.__getattribute__(module, "__dict__")
    except AttributeError:
        return None
    path = known.get("__file__") if isinstance(known, dict) else None
    if not isinstance(path, str) or not getattr(known.get("__spec__"), "has_location", True):
        return None
    return _absolute(path)


def _absolute(path: str) -> str | None:
    """Make a path absolute, with nothing resolved; None where that needs a working directory that is gone."""
    try:
        return absolute(path)
    except OSError:
        return None


def _file(path: str) -> tuple[str, os.stat_result] | None:
    """Find the regular file that a path names, or leads through, as those of modules in a zip file do."""
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
    """Where files are that are not the user's own."""

    def __init__(self) -> None:
        library = getattr(os, "__file__", None)
        self._library = os.path.realpath(os.path.dirname(library)) if library else None
        self._temporary = tuple(map(_below, ("/tmp", "/var/tmp", os.environ.get("TMPDIR") or "/tmp")))  # noqa: S108
        entries: list[object] = [*sys.path]
        importable = [_absolute(entry) for entry in entries if isinstance(entry, str)]
        self._importable = tuple(_below(entry) for entry in importable if entry is not None)
        self._known: dict[str, bool] = {}

    def is_installed(self, path: str) -> bool:
        """
        Return whether a file is of the standard library or of an installed package.

        A package that is in site-packages by a symbolic link only is not installed but worked on.
        """
        directory = os.path.dirname(path)
        known = self._known.get(directory)
        if known is None:
            try:
                real = os.path.realpath(directory)
            except ValueError:
                return True  # no file can have that name, so there is none to compare
            in_library = self._library is not None and _below(real).startswith(_below(self._library))
            known = self._known[directory] = in_library or not _INSTALLED.isdisjoint(real.split(os.sep))
        return known

    def is_temporary(self, path: str) -> bool:
        """Return whether a file is one that programs write to load it (TensorFlow, torch), and may remove."""
        return path.startswith(self._temporary) and not _below(path).startswith(self._importable)


def _below(path: str) -> str:
    """Return what paths in a directory start with."""
    return os.path.join(path, "")
