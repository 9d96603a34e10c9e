"""
Thread pools for linear algebra: give each the number of threads that it would have made in a new process.

That is the number of processors that a copy may use (the restoring side's: criu does not dump affinity), or what
variables such as OMP_NUM_THREADS say. C libraries read these when they are loaded; joblib, for one, sets them for its
workers. Pools with another number at the dump are left alone: the program chose it. `os.cpu_count()` and
`os.sched_getaffinity()` ask the kernel each time.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable

_TORCH = "torch"
_VARIABLES = {
    "openblas": ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"),
    "mkl": ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
    "blis": ("BLIS_NUM_THREADS", "OMP_NUM_THREADS"),
    "openmp": ("OMP_NUM_THREADS",),
    _TORCH: ("MKL_NUM_THREADS", "OMP_NUM_THREADS"),
}
"""Which variable each library heeds, the first that is a number."""


class _Pool(NamedTuple):
    """A pool with the number of threads that a new process would have."""

    kind: str
    number: int
    change: Callable[[int], object]


class ThreadCounts(BuiltIn):
    """The thread counts of torch and of BLAS libraries."""

    def __init__(self) -> None:
        self._pools: list[_Pool] = []

    def before_dump(self) -> None:
        """Find the pools whose number is not the program's choice."""
        pools = [_Pool(each.internal_api, each.num_threads, each.set_num_threads) for each in _libraries()]
        torch: Any = sys.modules.get(_TORCH)
        if torch is not None:
            pools.append(_Pool(_TORCH, torch.get_num_threads(), torch.set_num_threads))
        processors = len(os.sched_getaffinity(0))
        self._pools = [pool for pool in pools if pool.number == _usual(pool.kind, processors)]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Set the new numbers where they differ."""
        processors = len(os.sched_getaffinity(0))
        for pool in self._pools:
            number = _usual(pool.kind, processors)
            if number != pool.number:
                pool.change(number)
        self.in_original()


def _libraries() -> list[Any]:
    """Return the loaded ones, and undo what the import sets: a variable that lets two OpenMPs be loaded."""
    name, variable = "threadpoolctl", "KMP_DUPLICATE_LIB_OK"
    is_new, is_unset = name not in sys.modules, variable not in os.environ
    libraries: list[Any] = import_module(name).ThreadpoolController().lib_controllers
    if is_new:
        del sys.modules[name]
        if is_unset:
            os.environ.pop(variable, None)
    return libraries


def _usual(kind: str, processors: int) -> int:
    """Return how many threads a library makes in a new process."""
    for name in _VARIABLES.get(kind, ()):
        first = os.environ.get(name, "").partition(",")[0].strip()  # OpenMP takes one for each level
        if first.isdecimal() and int(first):
            return min(int(first), processors) if kind == "openblas" else int(first)
    return processors
