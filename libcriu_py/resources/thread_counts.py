"""
Pools of threads for linear algebra, where a copy may use another number of processors.

A restored process has the processors of the restoring side: criu does not dump the affinity. Pools that had one
thread for each processor get the new number: torch's, and those of OpenBLAS, MKL, BLIS and OpenMP. `os.cpu_count()` and
`os.sched_getaffinity()` ask the kernel each time.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class ThreadCounts(BuiltIn):
    """The numbers of threads of torch and of BLAS libraries."""

    def __init__(self) -> None:
        self._processors = 0
        self._libraries: list[Any] = []
        self._torch = False

    def let_go(self) -> None:
        """Find the pools that have a thread for each processor."""
        self._processors = len(os.sched_getaffinity(0))
        controller = import_module("threadpoolctl").ThreadpoolController()
        self._libraries = [library for library in controller.lib_controllers if library.num_threads == self._processors]
        torch: Any = sys.modules.get("torch")
        self._torch = torch is not None and torch.get_num_threads() == self._processors

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Set the new number, where it is another."""
        now = len(os.sched_getaffinity(0))
        if now != self._processors:
            for library in self._libraries:
                library.set_num_threads(now)
            if self._torch:
                torch: Any = sys.modules["torch"]
                torch.set_num_threads(now)
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original has its processors."""
        self._libraries = []
