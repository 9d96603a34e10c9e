"""The base class of the built-in resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable


class Arrival(NamedTuple):
    """
    How much time has passed since the dump, as a copy sees it.

    Attributes:
        downtime: By the wall clock, in seconds.
        monotonic_jump: By `time.monotonic()`, in seconds: about 0 where criu hides the downtime (root); elsewhere
            negative after a reboot.
    """

    downtime: float
    monotonic_jump: float


class BuiltIn:
    """A built-in resource, made anew for each checkpoint."""

    variables: ClassVar[tuple[bytes, ...]] = ()
    """If not empty, a copy has work only where one of these variables is not as it was at the dump."""

    def before_dump(self) -> Awaitable[None] | None:
        """Prepare for the dump, in the original."""

    def before_dump_last(self) -> bool:
        """Do what can be done in advance for copies; return whether something is left for `in_copy`."""
        ours = (BuiltIn.in_copy, BuiltIn.in_original)
        return (type(self).in_copy, type(self).in_original) != ours

    def only_id(self) -> tuple[object, int] | None:
        """Return a thread whose id C renews, and where that is."""
        return None

    def in_copy(self, arrival: Arrival) -> Awaitable[None] | None:  # noqa: ARG002
        """Adapt a restored copy to where it runs; do what `in_original` does unless overridden."""
        return self.in_original()

    def in_original(self) -> Awaitable[None] | None:
        """Undo `before_dump` in the original if that goes on; only forget what was found unless overridden."""
        vars(self).clear()
        return None
