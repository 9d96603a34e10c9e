"""
Find the callbacks of `os.register_at_fork`, by which libraries learn that they run in a new process.

A copy is a new process too, but no forked child: its threads and locks still exist. Most callbacks would mark living
threads as dead, replace locks that others hold, or start second worker threads. So copies call only those in `KNOWN`.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Callback = Callable[[], object]

KNOWN = {"uuid_utils._uuid_utils.reseed"}
"""Callbacks tested in copies, which renew random state or ids and nothing else."""

UNNEEDED = {
    "bson._after_fork",
    "ddtrace.internal.forksafe.run_child_hooks",
    "libcriu_py.criu.native._forget_after_fork",
    "pymongo.asynchronous.mongo_client.<lambda>",
    "pymongo.synchronous.mongo_client.<lambda>",
}
"""Callbacks that copies do not need: they free locks and restart threads, or a resource renews their ids."""


def registered() -> list[Callback]:
    """
    Return the callbacks that a forked child would call.

    The interpreter keeps them in a list that no function returns (Modules/posixmodule.c, register_at_forker). A
    callback of our own, removed at once, leads the garbage collector to that list.
    """

    def marker() -> None:
        pass

    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()  # frozen objects are not searched
    os.register_at_fork(after_in_child=marker)
    found: list[Callback] = []
    for holder in gc.get_referrers(marker):
        if type(holder) is list and marker in holder:
            holder.remove(marker)
            found = list(holder)
    if frozen:
        gc.freeze()
    return found


def name_of(callback: Any) -> str:
    """Return module and qualified name of a callback."""
    callback = getattr(callback, "func", callback)
    module = getattr(callback, "__module__", None) or type(getattr(callback, "__self__", None)).__module__
    return f"{module}.{getattr(callback, '__qualname__', type(callback).__qualname__)}"


def known() -> list[tuple[str, Callback]]:
    """Return the callbacks that copies call, with their names."""
    return [(name, callback) for callback in registered() if (name := name_of(callback)) in KNOWN]


def unknown() -> list[str]:
    """Return the names of callbacks that copies do not call, although a library may rely on it."""
    names = dict.fromkeys(map(name_of, registered()))
    return [name for name in names if not (is_standard(name) or name in KNOWN or name in UNNEEDED)]


def is_standard(name: str) -> bool:
    """Return whether a dotted name belongs to the standard library, whose state has resources of its own."""
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top != "__main__"
