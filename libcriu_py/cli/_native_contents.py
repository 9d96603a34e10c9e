"""Describe the process of a native snapshot, as its plan has it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from libcriu_py.errors import SnapshotError
from libcriu_py.native import plan as format_of_plan
from libcriu_py.native.plan import MEMORY, NO_FILE, AreaFlag, FileFlag, Kind, PlanError
from libcriu_py.snapshot.trust import opened, read

if TYPE_CHECKING:
    from libcriu_py.native.plan import Area, Plan
    from libcriu_py.snapshot.manifest import Snapshot

_NAMES = {
    Kind.SOCKET_PAIR: "unix-socket",
    Kind.PIPE: "pipe",
    Kind.PIPE_END: "pipe",
    Kind.EPOLL: "epoll",
    Kind.EVENTFD: "eventfd",
    Kind.TIMERFD: "timerfd",
    Kind.SIGNALFD: "signalfd",
    Kind.MEMFD: "memfd",
    Kind.LISTENER: "listening-socket",
    Kind.INOTIFY: "inotify",
}


def process(snapshot: Snapshot, shared: str) -> dict[str, Any]:
    """
    Describe the one process: its threads, its memory, and its open files and sockets.

    Args:
        snapshot: A native snapshot.
        shared: The kind of memory that copies share until they write to it.

    Raises:
        SnapshotError: Its plan cannot be read.
    """
    plan = _read(snapshot)
    threads = snapshot.pids
    memory: dict[str, int] = {}
    for area in plan.areas:
        kind = _kind(plan, area, shared)
        memory[kind] = memory.get(kind, 0) + area.end - area.start
    entries = _descriptors(plan)
    return {
        "pid": threads[0],
        "name": os.path.basename(snapshot.command[0]),
        "threads": threads,
        "saved": os.stat(os.path.join(snapshot.path, "memory.img")).st_size,
        "memory": dict(sorted(memory.items(), key=lambda item: -item[1])),
        "files": [entry for entry in entries if not entry["kind"].endswith("-socket")],
        "sockets": [entry for entry in entries if entry["kind"].endswith("-socket")],
    }


def _read(snapshot: Snapshot) -> Plan:
    path = os.path.join(snapshot.path, format_of_plan.PLAN)
    try:
        with opened(snapshot.path) as directory:
            return format_of_plan.decode(read(directory, path))
    except (OSError, PlanError) as error:
        message = f"{path} cannot be read ({error}); make the snapshot anew"
        raise SnapshotError(message) from None


def _kind(plan: Plan, area: Area, shared: str) -> str:
    if area.file == NO_FILE:
        return "stack" if area.flags & AreaFlag.GROWS_DOWN else "anonymous"
    if plan.files[area.file].flags & FileFlag.OF_SNAPSHOT:
        return shared
    return "file, shared" if area.flags & AreaFlag.SHARED else "file, private"


def _descriptors(plan: Plan) -> list[dict[str, Any]]:
    """Describe the descriptors above 2, of which the other end of a pair is of the same kind."""
    found: list[dict[str, Any]] = []
    last = 0
    for one in plan.descriptors:
        last = last if one.kind == Kind.OTHER_END else one.kind
        name = os.fsdecode(one.data if last == Kind.OPEN else one.data[MEMORY.size :] if last == Kind.MEMFD else b"")
        kind = "duplicate" if last == Kind.DUPLICATE else _NAMES.get(last, "file")
        found.append(
            {
                "fd": one.fd,
                "kind": "request" if last == Kind.REQUEST else kind,
                "name": f"of {one.other}" if last == Kind.DUPLICATE else name,
                "position": one.value if last == Kind.OPEN else 0,
                "replaced": "request" if last == Kind.REQUEST else None,
            }
        )
    return found
