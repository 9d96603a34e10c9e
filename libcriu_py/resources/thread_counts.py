"""
Thread pools for linear algebra: resize them to the number of processors that a copy may use.

A restored process has the CPU affinity of the restoring side: criu does not dump it. Pools with one thread per
processor get the new number: those of torch, OpenBLAS, MKL, BLIS and OpenMP. `os.cpu_count()` and
`os.sched_getaffinity()` ask the kernel each time.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class ThreadCounts(BuiltIn):
    """The thread counts of torch and of BLAS libraries."""

    def __init__(self) -> None:
        self._processors = 0
        self._libraries: list[Any] = []
        self._torch = False

    def before_dump(self) -> None:
        """Find the pools with one thread per processor."""
        self._processors = len(os.sched_getaffinity(0))
        controller = import_module("threadpoolctl").ThreadpoolController()
        self._libraries = [library for library in controller.lib_controllers if library.num_threads == self._processors]
        torch: Any = sys.modules.get("torch")
        self._torch = torch is not None and torch.get_num_threads() == self._processors

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Set the new number if it differs."""
        now = len(os.sched_getaffinity(0))
        if now != self._processors:
            for library in self._libraries:
                library.set_num_threads(now)
            if self._torch:
                torch: Any = sys.modules["torch"]
                torch.set_num_threads(now)
        self.in_original()
