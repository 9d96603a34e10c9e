"""The command line of a copy in `ps`, by way of `setproctitle`."""

from __future__ import annotations

import os
import sys
from typing import Any

_title: list[Any] = []
"""The module that shows a command line in `ps`, if there is one."""


def show() -> None:
    """Show the new command line in `ps`, if `setproctitle` was there before the dump."""
    if is_known():
        module = _title[0]
        line = os.fsencode(" ".join(sys.orig_argv))
        name = module.getthreadtitle()  # setproctitle() changes it too, by which pgrep and top find the program
        module.setproctitle(line.decode("utf-8", "replace"))
        module.setthreadtitle(name)


def is_known() -> bool:
    """Return whether `show` can do anything."""
    return bool(_title)


def prepare() -> None:
    """
    Let `setproctitle`, if installed, locate the command line now, but undo its change of the thread name.

    Its package imports `logging`, which would then have to be put right in each copy and shut down at its end. So only
    its part in C is loaded, unless the program has imported the package.
    """
    _title[:] = [module for module in (sys.modules.get("setproctitle") or _part_in_c(),) if module is not None]
    if is_known():
        name = _title[0].getthreadtitle()
        _title[0].getproctitle()
        _title[0].setthreadtitle(name)


def _part_in_c() -> Any:
    from importlib import util
    from importlib.machinery import PathFinder

    try:
        package = util.find_spec("setproctitle")
        places = None if package is None else package.submodule_search_locations
        found = package if places is None else PathFinder.find_spec("setproctitle._setproctitle", [*places])
        if found is None or found.loader is None:
            return None  # optional: without it `ps` shows the old title
        module = util.module_from_spec(found)
        found.loader.exec_module(module)
    except (ImportError, ValueError, AttributeError):
        return None
    return module
