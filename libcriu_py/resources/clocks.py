"""Time: how long the program was away, and a monotonic clock that does not know of it."""

from __future__ import annotations

from libcriu_py import clock
from libcriu_py.resources.base import Arrival, BuiltIn


class Clock(BuiltIn):
    """
    The clocks of `libcriu_py.clock`.

    Args:
        compensate: Whether `time.monotonic` and `time.monotonic_ns` leave the downtime out from now on, also where the
            kernel's clock does not.
        host: Whether copies have the monotonic clocks of the machine, comparable with those of other processes,
            instead of ones that go on from the dump.
    """

    def __init__(self, *, compensate: bool = False, host: bool = False) -> None:
        self._compensate = compensate
        self._host = host

    def let_go(self) -> None:
        """Have the clocks noted for copies."""
        clock.keep_going(not self._host)

    def come_back(self) -> None:
        """Forget about it."""
        clock.keep_going(wanted=False)

    def put_right(self, arrival: Arrival) -> None:
        """Take the jump out of the package's clock."""
        clock.add_jump(arrival.monotonic_jump, arrival.downtime)
        if self._compensate:
            clock.compensate()
