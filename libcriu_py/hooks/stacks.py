"""
Describe where threads are, for messages.

This reads dictionaries only: a stopped thread may hold any lock, even that of `threading.enumerate()`.
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
"""Modules whose frames show how a thread was stopped or a hook called, and are left out."""


def describe_stack(frame: FrameType | None, depth: int = _DEPTH) -> str:
    """Describe the `depth` innermost calls of a stack, innermost first."""
    lines: list[str] = []
    while frame is not None and len(lines) < depth:
        if frame.f_globals.get("__name__") not in _OWN_MODULES:
            code = frame.f_code
            lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return ", ".join(lines)


def describe_threads(idents: Iterable[int]) -> str:
    """Describe threads by their names and where they are."""
    frames = sys._current_frames()  # noqa: SLF001 - the only way to see where a thread is
    module: Any = threading
    active: dict[int, threading.Thread] = dict(module._active)  # noqa: SLF001
    parts = []
    for ident in idents:
        name = active[ident].name if ident in active else ident
        parts.append(f"thread {name} at {describe_stack(frames.get(ident))}")
    return "; ".join(parts)
