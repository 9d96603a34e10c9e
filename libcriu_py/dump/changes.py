"""
What a process may have changed of itself: its user, rights, filters, namespaces, root directory and session.

A native copy has its caller's, as any program that is started. It would run with more rights than the dumped process,
or elsewhere, if that had changed them. What is open at the start is noted too: it is the caller's, not the program's.
"""

from __future__ import annotations

import fcntl
import os
import stat as modes
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
_opened: dict[int, tuple[int, int]] = {}
"""Device and inode of what was open above 2 at the start."""
_noted: list[tuple[int, str]] = []
"""Pid and start time of the process for which that was noted; a copy is another one."""


def note() -> None:
    """Note how things are, as early as possible; a second call in the same process does nothing."""
    process = (os.getpid(), stat()[19])
    if _noted != [process]:
        if not _noted:  # what else a copy or a child has open may be the program's
            _opened.update(_open_at_start())
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


def inherited() -> list[tuple[int, int, int]]:
    """Return the descriptors above 2 that the process was started with and still has: number, device, inode."""
    now = _inheritable()
    return [(fd, *identity) for fd, identity in _opened.items() if fd in now and _identity(now[fd]) == identity]


def _inheritable() -> dict[int, os.stat_result]:
    """Return what is open above 2 and outlives exec, as all that a process was started with does."""
    found = {}
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd > 2 and os.get_inheritable(fd):
                found[fd] = os.fstat(fd)
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _open_at_start() -> dict[int, tuple[int, int]]:
    """
    Return what may be the caller's.

    A pipe with both ends here is not, unless it is make's: a library may have made it for itself by now.
    """
    found = _inheritable()
    named = _of_make()
    ends: dict[tuple[int, int], set[int]] = {}
    for fd, opened in found.items():
        if modes.S_ISFIFO(opened.st_mode) and str(fd) not in named:
            ends.setdefault(_identity(opened), set()).add(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
    both = {identity for identity, access in ends.items() if len(access) > 1}
    return {fd: _identity(opened) for fd, opened in found.items() if _identity(opened) not in both}


def _of_make() -> list[str]:
    """Return the descriptors of make's jobserver: --jobserver-auth=3,4 or, of make before 4.2, --jobserver-fds=3,4."""
    words = os.environ.get("MAKEFLAGS", "").split()
    return [fd for word in words if word.startswith("--jobserver-") for fd in word.partition("=")[2].split(",")]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


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
