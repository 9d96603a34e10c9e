"""Time: the downtime, and a monotonic clock that leaves it out."""

from __future__ import annotations

from libcriu_py import clock
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

    def before_dump(self) -> None:
        """Have the clocks recorded for copies."""
        clock.set_continues(not self._host)

    def in_original(self) -> None:
        """Record them no longer."""
        clock.set_continues(wanted=False)

    def in_copy(self, arrival: Arrival) -> None:
        """Subtract the jump from the package's clock."""
        clock.add_jump(arrival.monotonic_jump, arrival.downtime)
        if self._compensate:
            clock.compensate()
