"""
Time: how long the program was away, and a monotonic clock that does not know of it.
"""

from __future__ import annotations

from libcriu_py import clock
from libcriu_py.resources.base import Arrival, BuiltIn


class Clock(BuiltIn):
    """
    The clocks of `libcriu_py.clock`.

    Args:
        compensate: Whether `time.monotonic` and `time.monotonic_ns` leave the downtime out from now on.
    """

    def __init__(self, *, compensate: bool = False) -> None:
        self._compensate = compensate

    def put_right(self, arrival: Arrival) -> None:
        """
        Take the jump out of the package's clock.
        """
        clock.add_jump(arrival.monotonic_jump, arrival.downtime)
        if self._compensate:
            clock.compensate()
