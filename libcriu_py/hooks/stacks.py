"""
Where threads are, for messages.

Only dictionaries are read: a thread that was stopped may hold any lock, that of `threading.enumerate()` too.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

_DEPTH = 4
_OWN_MODULES = frozenset(
    f"libcriu_py.{name}"
    for name in (
        "dump.checkpoint",
        "hooks.lifecycle",
        "hooks.no_checkpoint",
        "hooks.runner",
        "hooks.safepoints",
        "hooks.thread_stop",
    )
)
"""Modules whose frames are how a thread was stopped or a hook called, and not where it is."""


def describe_stack(frame: FrameType | None, depth: int = _DEPTH) -> str:
    """
    Say where a stack is, innermost call first.

    Args:
        frame: Its innermost frame.
        depth: Of how many calls.
    """
    lines: list[str] = []
    while frame is not None and len(lines) < depth:
        if frame.f_globals.get("__name__") not in _OWN_MODULES:
            code = frame.f_code
            lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return ", ".join(lines)


def describe_threads(idents: Iterable[int]) -> str:
    """Say where threads are, with their names."""
    frames = sys._current_frames()  # noqa: SLF001 - the only way to see where a thread is
    module: Any = threading
    active: dict[int, threading.Thread] = dict(module._active)  # noqa: SLF001
    parts = []
    for ident in idents:
        name = active[ident].name if ident in active else ident
        parts.append(f"thread {name} at {describe_stack(frames.get(ident))}")
    return "; ".join(parts)
