"""The protocol of a resource, for type checkers and `isinstance`; it costs an import of typing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Awaitable


@runtime_checkable
class Resource(Protocol):
    """
    Something that must be let go before a dump and put right after a restore.

    Both methods may be `async`. `after_restore` also runs when the dump failed, or when the original continues
    (`then="continue"`), so that the process works as before.
    """

    def before_checkpoint(self) -> Awaitable[None] | None:
        """Let go of what cannot be dumped."""

    def after_restore(self) -> Awaitable[None] | None:
        """Put right what was let go."""
