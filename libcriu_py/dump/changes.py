"""
What a process may have changed of itself: its user, rights, filters, namespaces, root directory and session.

A native copy has its caller's, as any program that is started. It would run with more rights than the dumped process,
or elsewhere, if that had changed them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.linux.files import stat, status

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELDS = {
    "user": ("Uid",),
    "groups": ("Gid", "Groups"),
    "capabilities": ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs"),
    "seccomp filters": ("Seccomp", "Seccomp_filters"),
}
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid_for_children", "time_for_children", "user", "uts")
_at_start: dict[str, object] = {}
_noted: list[tuple[int, str]] = []
"""Pid and start time of the process for which that was noted; a copy is another one."""


def note() -> None:
    """Note how things are, as early as possible; a second call in the same process does nothing."""
    process = (os.getpid(), stat()[19])
    if _noted != [process]:
        _noted[:] = [process]
        _at_start.update(_state())


def found() -> str | None:
    """Return the first thing that is not as it was noted, in words; None if nothing has changed."""
    now = _state()
    differing = (name for name, value in _at_start.items() if now[name] != value)
    changed = next(differing, None)
    if changed is not None:
        return changed
    main = _filters(status())
    others = (_filters(_status_of(task)) for task in os.listdir("/proc/self/task"))
    return "seccomp filters in one thread" if any(found not in {None, main} for found in others) else None


def _state() -> dict[str, object]:
    told = status()
    state: dict[str, object] = {name: [told.get(field) for field in fields] for name, fields in _FIELDS.items()}
    state["namespaces"] = [_inode(name) for name in _NAMESPACES]
    root = os.stat("/")
    state["root directory"] = (root.st_dev, root.st_ino)
    state["session"] = os.getsid(0)
    return state


def _inode(namespace: str) -> int:
    try:
        return os.stat(f"/proc/self/ns/{namespace}").st_ino
    except OSError:
        return 0  # this kernel has none of that kind


def _status_of(task: str) -> Mapping[str, str] | None:
    try:
        return status(f"self/task/{task}")
    except OSError:
        return None  # it has ended


def _filters(told: Mapping[str, str] | None) -> tuple[str | None, str | None] | None:
    return None if told is None else (told.get("Seccomp"), told.get("Seccomp_filters"))
