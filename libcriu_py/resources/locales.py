"""
The locale: categories that the program took from its environment are taken from the new one.

LC_CTYPE is set by the hand-over, as Python does at its start. The others are "C" until the program calls
`locale.setlocale(LC_ALL, "")` or its like; those that still are as the old environment says are set again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Mapping

_CATEGORIES = ("LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME")


class Locale(BuiltIn):
    """The locale categories but LC_CTYPE."""

    def __init__(self) -> None:
        import _locale

        self._locale: Any = _locale
        self._followed: list[int] = []

    def let_go(self) -> None:
        """Find the categories that follow the environment."""
        for name in _CATEGORIES:
            category = getattr(self._locale, name)
            current = self._locale.setlocale(category, None)
            if current not in {"C", "POSIX"} and current == from_environment(name, os.environ):
                self._followed.append(category)

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Set them by the new environment, and to "C" where that names one that is not installed."""
        for category in self._followed:
            try:
                self._locale.setlocale(category, "")
            except self._locale.Error:
                self._locale.setlocale(category, "C")
        self._followed = []

    def come_back(self) -> None:
        """Do nothing: the original's environment is the old one."""
        self._followed = []


def from_environment(name: str, env: Mapping[str, str]) -> str:
    """Return the locale that an environment names for a category (setlocale(3))."""
    return env.get("LC_ALL") or env.get(name) or env.get("LANG") or "C"
