"""
Run hooks written for AWS Lambda SnapStart.

`snapshot_restore_py` keeps them as (function, args, kwargs). Before-hooks run in reverse order of registration,
after-hooks in order (its README).
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import BuiltIn


class SnapStart(BuiltIn):
    """The hooks registered with `snapshot_restore_py`."""

    def __init__(self) -> None:
        self._package: Any = sys.modules["snapshot_restore_py"]

    def before_dump(self) -> None:
        """Run the before-hooks."""
        for function, args, kwargs in reversed(list(self._package.get_before_snapshot())):
            function(*args, **kwargs)

    def in_original(self) -> None:
        """Run the after-hooks, in the original too: they undo what the before-hooks did."""
        for function, args, kwargs in list(self._package.get_after_restore()):
            function(*args, **kwargs)
