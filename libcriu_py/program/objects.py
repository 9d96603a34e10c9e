"""Find the living objects of a class."""

from __future__ import annotations

import gc
from typing import TypeVar

T = TypeVar("T")


class _Search:
    """The objects of the process, asked for once for all resources: there may be a million."""

    def __init__(self) -> None:
        self.objects: list[object] = []
        self.types: set[type] = set()
        self._was_frozen = False

    def begin(self) -> None:
        """Take stock, also of what was frozen, which `gc.get_objects` leaves out."""
        self._was_frozen = gc.get_freeze_count() > 0
        if self._was_frozen:
            gc.unfreeze()
        self.objects = gc.get_objects()
        # The type is asked, and not `__class__`: that of a lazy proxy would make it load what it stands for.
        self.types = {type(item) for item in self.objects}

    def end(self) -> None:
        """Let go of everything, and freeze what there is now if something was: copies share what they leave alone."""
        self.objects, self.types = [], set()
        if self._was_frozen:
            from libcriu_py.exit import freeze

            self._was_frozen = False
            freeze()


search = _Search()


def live(kind: type[T]) -> list[T]:
    """Find the instances of a class that the garbage collector knows."""
    alone = not search.objects
    if alone:
        search.begin()
    try:
        fitting = {found for found in search.types if issubclass(found, kind)}
        found: list[T] = [item for item in search.objects if type(item) in fitting] if fitting else []  # type: ignore[misc]
        return found
    finally:
        if alone:
            search.end()
