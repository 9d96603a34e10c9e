"""
What the first copies of a snapshot have shown: the pages of mapped memory that its programs write to at their start.

The first write to each costs a fault with a copy of the page, some microseconds, and there are thousands until the
first output. Later copies fetch these pages with a thread, while they put right what a restore disturbs
(csrc/ahead.c). Whether that pays depends on the machine, so it is done where it is asked for: by
`libcriu-py optimize --learn-start`, which puts it into the snapshot, or by the variable below. Then it is kept per
user, on a tmpfs, and learned anew when the machine or the snapshot is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py import _support
from libcriu_py.errors import CriuError
from libcriu_py.scratch import private_directory
from libcriu_py.snapshot import MANIFEST, START_PAGES

if TYPE_CHECKING:
    from libcriu_py._libcriu import CData
    from libcriu_py.snapshot import Snapshot

RUNS = 3
"""From how many the launcher learns (csrc/learning.c)."""
VARIABLE = "LIBCRIU_PY_LEARN"
"""`1` in the environment has launchers learn and use it; `0` has them not even use what is in a snapshot."""


def _can_fetch(snapshot: Snapshot) -> bool:
    """Tell whether copies can fetch pages ahead, and the snapshot does not say that they are to do more than that."""
    memory = snapshot.manifest.get("memory") or {}
    fetches = bool(snapshot.manifest.get("fetches_ahead"))
    return fetches and snapshot.memory_key is not None and memory.get("working_set") is None


def _is_said(snapshot: Snapshot) -> bool:
    """Tell whether a snapshot says itself what its starts write to."""
    return (snapshot.manifest.get("memory") or {}).get("start") is not None


def _place(snapshot: Snapshot) -> tuple[str, str] | None:
    """Give where it is kept, and the manifest it belongs to; None where nothing is to be learned."""
    if os.environ.get(VARIABLE) != "1" or not _can_fetch(snapshot) or _is_said(snapshot):
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
    if _is_said(snapshot) and _can_fetch(snapshot) and os.environ.get(VARIABLE) != "0":
        try:
            return os.open(os.path.join(snapshot.path, START_PAGES), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None  # it is slower without
    place = _place(snapshot)
    return None if place is None else _support.learned_pages(*place)


def take_learned(directory: str) -> bytes | None:
    """
    Take away what launchers have learned of a snapshot that is going to have another manifest.

    Args:
        directory: the snapshot.

    Returns:
        What was learned; None for nothing.
    """
    pages = _support.learned_pages(private_directory(), os.path.join(directory, MANIFEST))
    if pages is None:
        return None
    with os.fdopen(pages, "rb") as file:
        os.unlink(os.readlink(f"/proc/self/fd/{pages}"))
        return file.read()


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
    files = [os.path.join(snapshot.path, part["file"]) for part in snapshot.memory_files]
    return _support.learn(*place, [os.stat(file).st_ino for file in files])
