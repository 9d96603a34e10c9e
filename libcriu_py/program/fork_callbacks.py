"""
The callbacks of `os.register_at_fork`, by which libraries notice that a process is a new one.

A copy is new as well, but it is no forked child: its threads and locks are all there. Most callbacks would mark living
threads as dead, replace locks that others hold or start second worker threads. So copies call those of `KNOWN` only.
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
"""Those that were tried in copies, and renew random state and ids and nothing else."""

UNNEEDED = {
    "bson._after_fork",
    "ddtrace.internal.forksafe.run_child_hooks",
    "libcriu_py.criu.native._forget_after_fork",
    "pymongo.asynchronous.mongo_client.<lambda>",
    "pymongo.synchronous.mongo_client.<lambda>",
}
"""Those that copies can do without: they free locks and restart threads; where ids are renewed, a resource does it."""


def registered() -> list[Callback]:
    """
    Return the callbacks that a forked child would call.

    The interpreter keeps them in a list that no function returns (Modules/posixmodule.c, register_at_forker). A
    callback of our own leads to it, and is removed again.
    """

    def marker() -> None:
        pass

    frozen = gc.get_freeze_count() > 0
    if frozen:
        gc.unfreeze()  # what is frozen is not searched
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
    """Return those that copies call, with their names."""
    return [(name, callback) for callback in registered() if (name := name_of(callback)) in KNOWN]


def unknown() -> list[str]:
    """Return the names of those that are not called in copies, though a library may count on it."""
    names = dict.fromkeys(map(name_of, registered()))
    return [name for name in names if not (is_standard(name) or name in KNOWN or name in UNNEEDED)]


def is_standard(name: str) -> bool:
    """Return whether a dotted name is one of the standard library, whose state has resources of its own."""
    top = name.partition(".")[0]
    return top in sys.stdlib_module_names and top != "__main__"
