"""Time: the downtime, and a monotonic clock that leaves it out."""

from __future__ import annotations

import time

from libcriu_py import clock
from libcriu_py.linux import arrival as early
from libcriu_py.resources.base import Arrival, BuiltIn


class Clock(BuiltIn):
    """
    The clocks of `libcriu_py.clock`.

    Args:
        compensate: Whether to patch `time.monotonic` and `time.monotonic_ns` to leave the downtime out where the
            kernel's clock does not.
        host: Whether copies keep the machine's monotonic clocks, comparable with those of other processes, instead of
            clocks that go on from the dump.
    """

    def __init__(self, *, compensate: bool = False, host: bool = False) -> None:
        self._compensate = compensate
        self._host = host
        self._left = (0.0, 0.0)

    def before_dump(self) -> None:
        """Have the clocks recorded for copies."""
        clock.downtime()  # of an earlier restore, if nobody has asked for it
        clock.set_continues(not self._host)

    def before_dump_last(self) -> bool:
        """Leave it to the first who asks, unless clocks are to be replaced."""
        self._left = (time.monotonic(), time.time())
        clock.add_jump_later(self._measure)
        return self._compensate

    def _measure(self) -> tuple[float, float]:
        there, wall = early.arrived_at()
        left, left_wall = self._left
        return (there - left, max(0.0, wall - left_wall)) if wall else (0.0, 0.0)

    def in_original(self) -> None:
        """Record them no longer."""
        clock.set_continues(wanted=False)
        clock.add_jump_later(None)

    def in_copy(self, arrival: Arrival) -> None:
        """Subtract the jump from the package's clock."""
        clock.add_jump_later(None)
        clock.add_jump(arrival.monotonic_jump, arrival.downtime)
        if self._compensate:
            clock.compensate()
