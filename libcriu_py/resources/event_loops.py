"""
`asyncio`: timers go on where they were, and neither all fire at once nor hang.

A timer holds the reading of the monotonic clock at which it is due (Lib/asyncio/base_events.py, call_at). All are moved
by as much as the clock has jumped, so that their heap stays in order. uvloop keeps its timers in C, out of reach.
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

    def let_go(self) -> None:
        """Find the loops."""
        self._loops = [loop for loop in live(asyncio.BaseEventLoop) if not loop.is_closed()]

    def put_right(self, arrival: Arrival) -> None:
        """Move their timers."""
        if not clock.is_compensated():
            for loop in self._loops:
                for handle in loop._scheduled:  # noqa: SLF001
                    handle._when += arrival.monotonic_jump  # noqa: SLF001
        self._loops = []

    def come_back(self) -> None:
        """Do nothing: the original's timers are right."""
        self._loops = []
