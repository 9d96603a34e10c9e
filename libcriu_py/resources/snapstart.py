"""
Run hooks written for AWS Lambda SnapStart.

`snapshot_restore_py` keeps them as (function, args, kwargs). Before-hooks run in reverse order of registration,
after-hooks in order (its README).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.resources.base import BuiltIn

if TYPE_CHECKING:
    from collections.abc import Iterable

_OURS = "libcriu_py.hooks.snapstart"
"""Registers our own hooks with SnapStart; a checkpoint runs those itself."""


class SnapStart(BuiltIn):
    """The hooks registered with `snapshot_restore_py`."""

    def __init__(self) -> None:
        self._package: Any = sys.modules["snapshot_restore_py"]

    def before_dump(self) -> None:
        """Run the before-hooks."""
        _run(reversed(list(self._package.get_before_snapshot())))

    def in_original(self) -> None:
        """Run the after-hooks, in the original too: they undo what the before-hooks did."""
        _run(list(self._package.get_after_restore()))


def _run(hooks: Iterable[Any]) -> None:
    for function, args, kwargs in hooks:
        if getattr(function, "__module__", "") != _OURS:
            function(*args, **kwargs)
