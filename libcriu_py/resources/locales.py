"""
The locale: set categories that followed the old environment by the new one.

The hand-over sets LC_CTYPE, as Python does at its start. The others are "C" until the program calls
`locale.setlocale(LC_ALL, "")` or the like; those that still match the old environment are set again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Mapping

_CATEGORIES = ("LC_COLLATE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME")


class Locale(BuiltIn):
    """The locale categories except LC_CTYPE."""

    def __init__(self) -> None:
        import _locale

        self._locale: Any = _locale
        self._followed: list[int] = []

    def before_dump(self) -> None:
        """Find the categories that follow the environment."""
        for name in _CATEGORIES:
            category = getattr(self._locale, name)
            current = self._locale.setlocale(category, None)
            if current not in {"C", "POSIX"} and current == from_environment(name, os.environ):
                self._followed.append(category)

    def before_dump_last(self) -> bool:
        """Return whether a category follows the environment."""
        return bool(self._followed)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Set them by the new environment, or to "C" if the locale it names is not installed."""
        for category in self._followed:
            try:
                self._locale.setlocale(category, "")
            except self._locale.Error:
                self._locale.setlocale(category, "C")
        self._followed = []


def from_environment(name: str, env: Mapping[str, str]) -> str:
    """Return the locale that an environment names for a category (setlocale(3))."""
    return env.get("LC_ALL") or env.get(name) or env.get("LANG") or "C"
