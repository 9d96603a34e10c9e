"""
The import system and the cache of source lines: what they remember of directories and files.

All is forgotten before the dump, and in a copy once more what was remembered meanwhile, which is next to nothing: a
program that uses torch has hundreds of finders, and a copy pays for each page that it touches.

`importlib.invalidate_caches()` itself would import importlib.metadata, some 20 ms
(Lib/importlib/_bootstrap_external.py, PathFinder.invalidate_caches), so its work is done here. A directory's listing
is read again at the next import.
"""

from __future__ import annotations

import sys
from importlib.machinery import FileFinder
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class Imports(BuiltIn):
    """Finders' caches, and `linecache`."""

    def let_go(self) -> None:
        """Forget what may have changed by the time of a restore."""
        forget()

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Forget what was learnt since."""
        forget()


def forget() -> None:
    """Forget what the import system and `linecache` know of the file system."""
    cached: dict[str, Any] = sys.path_importer_cache
    for path, finder in list(cached.items()):
        # None: there was no such directory. A relative path is another one in another working directory. The
        # interpreter's own finders are made again when they are asked for, the program's are not.
        if finder is None or type(finder) is FileFinder or not path.startswith("/"):
            del cached[path]
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()
    # Those that are classes are Python's own, PathFinder among them.
    others: list[Any] = [item for item in sys.meta_path if not isinstance(item, type)]
    for item in others:
        if hasattr(item, "invalidate_caches"):
            item.invalidate_caches()
    metadata: Any = sys.modules.get("importlib.metadata")
    if metadata is not None:
        # What its finder's invalidate_caches() does, which is no class method before Python 3.12.
        metadata.FastPath.__new__.cache_clear()
    linecache: Any = sys.modules.get("linecache")
    if linecache is not None:
        _forget_lines(linecache.cache)


def _forget_lines(cache: dict[str, Any]) -> None:
    """Forget the lines of files; what has no file, or was not read yet, linecache.checkcache() keeps too."""
    for name, entry in list(cache.items()):
        if len(entry) > 1 and entry[1] is not None:
            del cache[name]
