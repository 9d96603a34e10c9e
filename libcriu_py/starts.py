"""
What the first copies of a snapshot have shown: the pages of mapped memory that its programs write to at their start.

The first write to each costs a fault with a copy of the page, some microseconds, and there are thousands until the
first output. Later copies fetch these pages with a thread, while they put right what a restore disturbs
(csrc/ahead.c). That is kept per user, on a tmpfs, and learned anew when the machine or the snapshot is: nothing is
written into a snapshot. What `libcriu-py optimize --learn` has put there goes before it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py import _support
from libcriu_py.errors import CriuError
from libcriu_py.scratch import private_directory
from libcriu_py.snapshot import MANIFEST

if TYPE_CHECKING:
    from libcriu_py._libcriu import CData
    from libcriu_py.snapshot import Snapshot

VARIABLE = "LIBCRIU_PY_LEARN"
"""`0` in the environment of a launcher: it neither learns nor has anything fetched."""


def _place(snapshot: Snapshot) -> tuple[str, str] | None:
    """Give where it is kept, and the manifest it belongs to; None where there is nothing to know."""
    memory = snapshot.manifest.get("memory") or {}
    if os.environ.get(VARIABLE) == "0" or snapshot.memory_key is None or memory.get("working_set") is not None:
        return None
    if not snapshot.manifest.get("fetches_ahead"):
        return None
    try:
        return private_directory(), os.path.join(snapshot.path, MANIFEST)
    except (CriuError, OSError):
        return None  # it is not needed; whoever needs the directory says what is wrong with it


def open_learned(snapshot: Snapshot) -> int | None:
    """
    Open what is known of a snapshot's starts.

    Args:
        snapshot: which.

    Returns:
        A descriptor for `_support.send_ahead`; None where nothing is known.
    """
    place = _place(snapshot)
    return None if place is None else _support.learned_pages(*place)


def learned_bytes(snapshot: Snapshot) -> int | None:
    """
    Tell how much a copy of a snapshot fetches ahead.

    Args:
        snapshot: which.

    Returns:
        Bytes; None where nothing is known.
    """
    import struct

    pages = open_learned(snapshot)
    if pages is None:
        return None
    with os.fdopen(pages, "rb") as file:
        data = file.read()
    entries = struct.Struct("=QQQ")  # struct lcp_range of csrc/parts.h
    whole = len(data) // entries.size * entries.size
    total = reached = 0
    # What was written to first is there twice.
    for start, end, _ in sorted(entries.iter_unpack(data[:whole])):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def begin_to_learn(snapshot: Snapshot) -> CData | None:
    """
    Begin to learn from a copy that was just restored.

    Args:
        snapshot: its snapshot.

    Returns:
        What `_support.mirror` takes; None where there is nothing to learn.
    """
    place = _place(snapshot)
    if place is None:
        return None
    known = _support.learned_pages(*place)
    if known is not None:
        os.close(known)
        return None
    files = [os.path.join(snapshot.path, part["file"]) for part in snapshot.memory_files]
    return _support.learn(*place, [os.stat(file).st_ino for file in files])
