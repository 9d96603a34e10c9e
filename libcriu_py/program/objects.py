"""Find the living objects of a class."""

from __future__ import annotations

import gc
import types
from typing import TypeVar

T = TypeVar("T")
_COMMON = frozenset(
    {dict, tuple, list, set, frozenset, type, property, staticmethod, classmethod}
    | {types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.CellType, types.ModuleType}
    | {types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType}
)
"""Most objects of a process are of these types, which have no state to look for."""


class _Search:
    """A list of the objects of the process that may be looked for, made once: there may be a million."""

    def __init__(self) -> None:
        self.objects: list[object] = []
        self.types: set[type] = set()
        self._was_frozen = False

    def begin(self) -> None:
        """List all objects, including frozen ones, which `gc.get_objects` leaves out."""
        self._was_frozen = gc.get_freeze_count() > 0
        if self._was_frozen:
            gc.unfreeze()
        # Use type() and not `__class__`, which makes a lazy proxy load its target.
        self.objects = [item for item in gc.get_objects() if type(item) not in _COMMON]
        self.types = {type(item) for item in self.objects}

    def end(self) -> None:
        """Drop the list, and freeze all objects again if some were frozen, so that copies share their pages."""
        self.objects, self.types = [], set()
        if self._was_frozen:
            from libcriu_py.exit import freeze

            self._was_frozen = False
            freeze()


search = _Search()


def live(kind: type[T]) -> list[T]:
    """Return the instances of a class that the garbage collector tracks; not of one that most objects are of."""
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
