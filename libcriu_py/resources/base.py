"""What every built-in resource is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Arrival(NamedTuple):
    """
    What a restored copy knows of the time that has passed.

    Attributes:
        downtime: Seconds since the dump by the wall clock.
        monotonic_jump: Seconds by which `time.monotonic()` has gone on since; about 0 where criu hides the downtime
            (root), negative after a reboot elsewhere.
    """

    downtime: float
    monotonic_jump: float


class BuiltIn:
    """One thing that is put right."""

    def let_go(self) -> Awaitable[None] | None:
        """Prepare for the dump, in the original."""

    def put_right(self, arrival: Arrival) -> Awaitable[None] | None:
        """Put it right, in a restored copy."""

    def come_back(self) -> Awaitable[None] | None:
        """Undo `let_go` in the original, which goes on."""
