"""
`multiprocessing`: a new authentication key for each copy, and the pid of a copy that has another one.

The key authenticates connections between a program's processes. It stays if children, which have the same one, are in
the image. The resource tracker and the fork server are children too: they are restored with the image, and
`ensure_running` starts either again if it is gone (Lib/multiprocessing/resource_tracker.py).
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn

_KEY_BYTES = 32


class Multiprocessing(BuiltIn):
    """Key, semaphore names and temporary directory of the main process."""

    def __init__(self) -> None:
        self._process: Any = sys.modules["multiprocessing.process"]
        self._pid = os.getpid()
        self._ours: list[tuple[Any, str]] = []

    def before_dump(self) -> None:
        """Find what has the pid of its maker, and does nothing in another process."""
        self._ours = [(item, "_parent_pid") for item in live(self._process.BaseProcess)]
        util: Any = sys.modules.get("multiprocessing.util")
        if util is not None:
            self._ours += [(item, "_pid") for item in util._finalizer_registry.values()]  # noqa: SLF001
        heap: Any = sys.modules.get("multiprocessing.heap")
        if heap is not None:
            self._ours.append((heap.BufferWrapper._heap, "_lastpid"))  # noqa: SLF001
        self._ours = [(item, name) for item, name in self._ours if getattr(item, name, None) == self._pid]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Make a new key, unless the image has children."""
        if os.getpid() != self._pid:
            for item, name in self._ours:
                setattr(item, name, os.getpid())
        if self._process.ORIGINAL_DIR is not None:  # as it is imported, and children of the spawn method take it
            with suppress(OSError):
                self._process.ORIGINAL_DIR = os.getcwd()
        current = self._process.current_process()
        if self._process._children:  # noqa: SLF001
            return
        current.authkey = os.urandom(_KEY_BYTES)
        current._config.pop("tempdir", None)  # noqa: SLF001
        synchronize: Any = sys.modules.get("multiprocessing.synchronize")
        if synchronize is not None:
            semaphore = synchronize.SemLock
            semaphore._rand = type(semaphore._rand)()  # noqa: SLF001
