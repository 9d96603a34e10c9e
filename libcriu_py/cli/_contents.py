"""
Collect what ``libcriu-py inspect`` shows of a snapshot.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.snapshot import IMAGES, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping


def read(path: str, *, verify: bool = False) -> dict[str, Any]:
    """
    Read a snapshot.

    Args:
        path: Its directory.
        verify: Whether to compare the digests of its files.

    Returns:
        Plain data, ready for JSON: sizes in bytes, times in seconds since the epoch where not said otherwise.

    Raises:
        SnapshotError: It is none, or damaged.
        ImageError: CRIU's images cannot be read.
        SnapshotUnsafe: Others could have written it.
    """
    snapshot = Snapshot.open(path)
    manifest = snapshot.manifest
    mismatches = [*snapshot.check(), *(snapshot.verify() if verify else ())]
    return {
        "path": snapshot.path,
        "kind": _kind(snapshot),
        "program": manifest.get("program"),
        "command": snapshot.command,
        "arguments": manifest.get("argv"),
        "created": manifest["created"],
        "age": round(max(0.0, time.time() - manifest["created"]), 1),
        "criu": manifest["criu_version"],
        "python": manifest["python"],
        "machine": {name: value for name, value in manifest["machine"].items() if name != "cpu_flags"},
        "uid": manifest["uid"],
        "mode": manifest.get("mode"),
        "size": _sizes(manifest["files"]),
        "preloaded": snapshot.details.get("preloaded"),
        "modules": snapshot.details.get("modules"),
        "preparation": snapshot.details.get("seconds"),
        "mismatches": [mismatch._asdict() for mismatch in mismatches],
        "verified": verify,
    }


def _kind(snapshot: Snapshot) -> str:
    """
    Name the use of a snapshot: "prepared", "interpreter", or "checkpointed itself".
    """
    if snapshot.program is not None:
        return "prepared"
    return "interpreter" if "preloaded" in snapshot.details else "checkpointed itself"


def _sizes(files: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """
    Add up the files: memory pages, other images, and the rest.
    """
    sizes = {"total": 0, "pages": 0, "images": 0, "other": 0, "files": len(files)}
    for name, entry in files.items():
        directory, _, base = name.rpartition(os.sep)
        kind = "other" if directory != IMAGES else "pages" if base.startswith("pages-") else "images"
        sizes[kind] += entry["size"]
        sizes["total"] += entry["size"]
    return sizes
