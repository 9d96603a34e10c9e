"""
Caches of the import system and of `linecache`, which describe files and directories; and imports that are put off.

The caches are cleared before the dump, and again in a copy, where next to nothing is left to clear: a program with
torch has hundreds of finders, and a copy pays for each page that it touches.

`importlib.invalidate_caches()` itself would import importlib.metadata, some 20 ms
(Lib/importlib/_bootstrap_external.py, PathFinder.invalidate_caches), so its work is done here.
"""

from __future__ import annotations

import contextlib
import sys
import types
from importlib.machinery import FileFinder
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class Imports(BuiltIn):
    """Finders' caches, and `linecache`; and lazy imports, which would be made by each copy."""

    def before_dump(self) -> None:
        """Clear what may be out of date at a restore."""
        import_lazy()
        forget()

    def before_dump_last(self) -> bool:
        """Clear what was cached since, right before the dump, so that a copy need not do it."""
        forget()
        return False

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Clear what was cached since."""
        forget()


def import_lazy() -> None:
    """
    Import what lazy imports have put off (PEP 810, Python 3.15), also those of the modules that this imports.

    What cannot be imported stays as it is, since its module may never use it.
    """
    tried: set[tuple[int, str]] = set()
    while getattr(sys, "lazy_modules", None):
        lazy = types.LazyImportType  # type: ignore[attr-defined, unused-ignore]
        modules: list[Any] = list(sys.modules.values())
        found = {
            (id(module), name): module
            for module in modules
            for name, value in list(getattr(module, "__dict__", {}).items())
            if type(value) is lazy
        }
        if found.keys() <= tried:
            return
        for key in found.keys() - tried:
            with contextlib.suppress(Exception):
                getattr(found[key], key[1])
        tried |= found.keys()


def forget() -> None:
    """Clear what the import system and `linecache` have cached of the file system."""
    cached: dict[str, Any] = sys.path_importer_cache
    for path, finder in list(cached.items()):
        # None: the directory did not exist. A relative path means another directory in another working directory. The
        # interpreter makes its own finders again on demand, but not the program's.
        if finder is None or type(finder) is FileFinder or not path.startswith("/"):
            del cached[path]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    # Classes are Python's own finders, such as PathFinder.
    others: list[Any] = [item for item in sys.meta_path if not isinstance(item, type)]
    for item in others:
        if hasattr(item, "invalidate_caches"):
            item.invalidate_caches()
    metadata: Any = sys.modules.get("importlib.metadata")
    if metadata is not None:
        # As its finder's invalidate_caches() does, which is not a class method before Python 3.12.
        metadata.FastPath.__new__.cache_clear()
    linecache: Any = sys.modules.get("linecache")
    if linecache is not None:
        _forget_lines(linecache.cache)


def _forget_lines(cache: dict[str, Any]) -> None:
    """Drop the lines of files; keep sources without a file and those not read yet, as linecache.checkcache() does."""
    for name, entry in list(cache.items()):
        if len(entry) > 1 and entry[1] is not None:
            del cache[name]
