"""Collect what ``libcriu-py inspect`` shows of a snapshot."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.images import readers
from libcriu_py.snapshot.manifest import (
    DUMP_LOG,
    IMAGES,
    MEMORY,
    SHARED_DIRECTORY,
    SLOTS,
    Snapshot,
    dump_stats,
)
from libcriu_py.snapshot.record import FileEntry

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARED = "anonymous, mapped from the snapshot"
"""The kind of memory that copies share until they write to it."""


def read(path: str, *, verify: bool = False) -> dict[str, Any]:
    """
    Read a snapshot.

    Args:
        path: Its directory.
        verify: Whether to compare the sums of its files.

    Returns:
        Plain data, ready for JSON: sizes in bytes, times in seconds, `created` since the epoch.

    Raises:
        SnapshotError: It is not a snapshot, or it is damaged.
        ImageError: CRIU's images cannot be read.
        SnapshotUnsafe: Others could have written it.
    """
    snapshot = Snapshot.open(path)
    launch, manifest = snapshot.launch, snapshot.manifest
    kind = _kind(snapshot)
    mismatches = [*snapshot.check(), *(snapshot.verify() if verify else ())]
    return {
        "path": snapshot.path,
        "kind": kind,
        "program": launch.program._asdict() if launch.program is not None and kind == "prepared" else None,
        "command": snapshot.command,
        "arguments": manifest.get("argv"),
        "created": manifest["created"],
        "age": round(max(0.0, time.time() - manifest["created"]), 1),
        "engine": launch.engine,
        "why_not_native": manifest.get("why_not_native"),
        "criu": manifest.get("criu_version"),
        "python": {**manifest["python"], "variables": dict(launch.variables)},
        "machine": {"arch": launch.arch, **manifest["machine"]},
        "uid": launch.uid,
        "mode": launch.mode,
        "size": _sizes({**launch.files, **_log(snapshot)}),
        "processes": _processes(snapshot),
        "memory": _memory(manifest.get("memory") or {}),
        "dump": dump_stats(snapshot.path),
        **_preparation(snapshot.details),
        "mismatches": [mismatch._asdict() for mismatch in mismatches],
        "verified": verify,
    }


def _log(snapshot: Snapshot) -> dict[str, FileEntry]:
    """Return size of the log, of which nothing is recorded, where it is there."""
    try:
        return {DUMP_LOG: FileEntry(os.stat(os.path.join(snapshot.path, DUMP_LOG)).st_size)}
    except OSError:
        return {}


def _preparation(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the makers of prepared snapshots note; programs may note anything under these names, too."""
    preloaded, warm_up = details.get("preloaded"), details.get("warm_up")
    return {
        "preloaded": preloaded if _are_texts(preloaded) else None,
        "modules": details.get("modules"),
        "warm_up": warm_up if isinstance(warm_up, list) and all(map(_are_texts, warm_up)) else [],
        "preparation": details.get("seconds"),
    }


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _kind(snapshot: Snapshot) -> str:
    """Return the kind of a snapshot: "prepared", "interpreter", or "checkpointed itself"."""
    if snapshot.program is None:
        return "checkpointed itself"
    return "interpreter" if snapshot.program.kind == "interpreter" else "prepared"


def _memory(memory: Mapping[str, Any]) -> dict[str, Any]:
    """Return how copies get their memory, and why."""
    return {
        "kind": memory.get("kind", "copy"),
        "why": memory.get("why", "the snapshot was made before memory could be mapped"),
        "owners": memory.get("owners", {}),
        "working_set": memory.get("working_set"),
    }


def _processes(snapshot: Snapshot) -> list[dict[str, Any]]:
    if snapshot.engine == "native":
        from libcriu_py.cli import _native_contents

        return [_native_contents.process(snapshot, SHARED)]
    return [_process(snapshot, process) for process in readers.process_tree(snapshot.images)]


def _process(snapshot: Snapshot, process: readers.Process) -> dict[str, Any]:
    """Describe a process: its ids, its memory, and its open files and sockets."""
    memory: dict[str, int] = {}
    shared = {part.key for part in snapshot.memory_files}
    for area in readers.memory(snapshot.images, process.pid):
        kind = SHARED if area.path.removeprefix("/") in shared else area.kind
        memory[kind] = memory.get(kind, 0) + area.end - area.start
    files: list[dict[str, Any]] = []
    sockets: list[dict[str, Any]] = []
    for descriptor in readers.descriptors(snapshot.images, process.pid):
        file = descriptor.file
        entry = {"fd": descriptor.fd, "kind": file.kind, "name": file.name, "position": file.position}
        entry["replaced"] = _replacement(snapshot, file.name)
        (sockets if file.kind.endswith("-socket") else files).append(entry)
    return {
        "pid": process.pid,
        "parent": process.ppid,
        "group": process.pgid,
        "session": process.sid,
        "name": process.name,
        "threads": list(process.threads),
        "saved": readers.saved_memory(snapshot.images, process.pid) + memory.get(SHARED, 0),
        "memory": dict(sorted(memory.items(), key=lambda item: -item[1])),
        "files": files,
        "sockets": sockets,
    }


def _replacement(snapshot: Snapshot, name: str) -> str | None:
    """Return the slot (or "images") that a restore puts in place of an open file; None for other files."""
    key = name.removeprefix("/")
    if key == snapshot.launch.images_key:
        return "images"
    return next((slot for slot, known in zip(SLOTS, snapshot.launch.slots, strict=True) if known == key), None)


def _sizes(files: Mapping[str, FileEntry]) -> dict[str, int]:
    """Add up the files: memory that is mapped, memory pages that are copied, other images, and the rest."""
    sizes = {"total": 0, "mapped": 0, "pages": 0, "images": 0, "other": 0, "files": len(files)}
    for name, (size, _) in files.items():
        directory, _, base = name.rpartition(os.sep)
        kind = "mapped" if name == MEMORY or directory == SHARED_DIRECTORY else "other"
        if directory == IMAGES:
            kind = "pages" if base.startswith("pages-") else "images"
        sizes[kind] += size
        sizes["total"] += size
    return sizes
