"""
The program's own source files, whose code a snapshot holds.

Copies keep the modules imported before the dump, and read the main module anew unless that took the checkpoint. After a
change to an imported module, they would silently run old code, which may not fit the new main module.
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
    List the source files of this process's modules, except the standard library and installed packages.

    Also left out: extension modules, which are compared as mapped files; modules that programs write to a temporary
    directory to load them; and this package, of which any version with the same record and protocol will do.

    Args:
        main: Whether to include the main module.

    Returns:
        An entry for each file, by path, with mtime in nanoseconds; for modules in a zip file, that file.
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
    Return the absolute path of a module's source; None if it has none, or is frozen.

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
    return _absolute(path)


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
    """Tells the program's own files from installed and temporary ones."""

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
        Return whether a file belongs to the standard library or an installed package.

        A package that is only linked into site-packages is not installed but under development.
        """
        directory = os.path.dirname(path)
        known = self._known.get(directory)
        if known is None:
            try:
                real = os.path.realpath(directory)
            except ValueError:
                return True  # not a valid file name: there is nothing to compare
            in_library = self._library is not None and _below(real).startswith(_below(self._library))
            known = self._known[directory] = in_library or not _INSTALLED.isdisjoint(real.split(os.sep))
        return known

    def is_temporary(self, path: str) -> bool:
        """Return whether a file is one that a program (TensorFlow, torch) writes to load it, and may remove."""
        return path.startswith(self._temporary) and not _below(path).startswith(self._importable)


def _below(path: str) -> str:
    """Return the prefix of all paths in a directory."""
    return os.path.join(path, "")
