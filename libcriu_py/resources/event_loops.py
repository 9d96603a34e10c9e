"""
`asyncio`: timers keep their remaining time, instead of all firing at once or hanging.

A timer holds the monotonic time at which it is due (Lib/asyncio/base_events.py, call_at). All move by as much as the
clock has jumped, so their heap stays in order. uvloop keeps its timers in C, out of reach.
"""

from __future__ import annotations

import asyncio
from typing import Any

from libcriu_py import clock
from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class EventLoops(BuiltIn):
    """The timers of all event loops."""

    def __init__(self) -> None:
        self._loops: list[Any] = []

    def before_dump(self) -> None:
        """Find the open loops."""
        self._loops = [loop for loop in live(asyncio.BaseEventLoop) if not loop.is_closed()]

    def in_copy(self, arrival: Arrival) -> None:
        """Move their timers by the jump."""
        if not clock.is_compensated():
            for loop in self._loops:
                for handle in loop._scheduled:  # noqa: SLF001
                    handle._when += arrival.monotonic_jump  # noqa: SLF001
        self._loops = []
