"""
Record where descriptors are opened, if ``LIBCRIU_PY_TRACE_FDS=1`` is set.

Audit events report every `open` with its path, and every socket that connects or is bound (Doc/library/audit_events).
An audit hook cannot be removed, and each event costs a walk up the stack, so this is for finding problems, not for
every day.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.settings import variable

if TYPE_CHECKING:
    from types import FrameType

_DEPTH = 12
_paths: dict[str, tuple[str, ...]] = {}
_sockets: dict[int, tuple[str, ...]] = {}
_active = False


def begin() -> None:
    """Start tracing, if the environment asks for it."""
    global _active
    if variable("LIBCRIU_PY_TRACE_FDS") and not _active:
        _active = True
        sys.addaudithook(_note)


def stack_of(fd: int, link: str) -> tuple[str, ...]:
    """
    Return the calls that opened a descriptor, the innermost first; empty if they are not known.

    Args:
        fd: The descriptor.
        link: Its link in /proc.
    """
    if link.startswith("socket:"):
        return _sockets.get(fd, ())
    return _paths.get(link.removesuffix(" (deleted)"), ())


def _note(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(args[0], (str, bytes)):
        _paths[os.path.realpath(os.fsdecode(args[0]))] = _stack(sys._getframe().f_back)  # noqa: SLF001
    elif event in {"socket.connect", "socket.bind"}:
        _sockets[args[0].fileno()] = _stack(sys._getframe().f_back)  # noqa: SLF001


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    lines: list[str] = []
    while frame is not None and len(lines) < _DEPTH:
        code = frame.f_code
        if not code.co_filename.startswith("<frozen"):
            lines.append(f"{code.co_filename}:{frame.f_lineno} in {code.co_name}")
        frame = frame.f_back
    return tuple(lines)
