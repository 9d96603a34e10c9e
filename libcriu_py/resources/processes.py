"""
`multiprocessing`: a new authentication key for each copy.

The key authenticates connections between a program's processes. It stays if children, which have the same one, are in
the image. The resource tracker and the fork server are children too: they are restored with the image, and
`ensure_running` starts either again if it is gone (Lib/multiprocessing/resource_tracker.py).
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_KEY_BYTES = 32


class Multiprocessing(BuiltIn):
    """Key, semaphore names and temporary directory of the main process."""

    def __init__(self) -> None:
        self._process: Any = sys.modules["multiprocessing.process"]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Make a new key, unless the image has children."""
        current = self._process.current_process()
        if self._process._children:  # noqa: SLF001
            return
        current.authkey = os.urandom(_KEY_BYTES)
        current._config.pop("tempdir", None)  # noqa: SLF001
        synchronize: Any = sys.modules.get("multiprocessing.synchronize")
        if synchronize is not None:
            semaphore = synchronize.SemLock
            semaphore._rand = type(semaphore._rand)()  # noqa: SLF001
