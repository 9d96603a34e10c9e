"""
Hooks that were written for AWS Lambda SnapStart run unchanged.

`snapshot_restore_py` keeps them as (function, args, kwargs); before-hooks run last registered first, after-hooks first
registered first (its README).
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class SnapStart(BuiltIn):
    """What is registered with `snapshot_restore_py`."""

    def __init__(self) -> None:
        self._package: Any = sys.modules["snapshot_restore_py"]

    def let_go(self) -> None:
        """Run the before-hooks."""
        for function, args, kwargs in reversed(list(self._package.get_before_snapshot())):
            function(*args, **kwargs)

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Run the after-hooks."""
        self.come_back()

    def come_back(self) -> None:
        """Run the after-hooks: the original has let go what they make anew."""
        for function, args, kwargs in list(self._package.get_after_restore()):
            function(*args, **kwargs)
