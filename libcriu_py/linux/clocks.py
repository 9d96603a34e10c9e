"""
Python's monotonic clocks in a native copy, where no time namespace hides how long the snapshot has lain (csrc/copy).

Replacing `time.monotonic` would miss those who have imported the function itself, as `queue` and `sched` do. So the C
function behind it is replaced, for all who hold it.
"""

from __future__ import annotations

import sys
import time
from types import BuiltinFunctionType

from libcriu_py import clock
from libcriu_py.linux.ffi import ffi, lib
from libcriu_py.linux.maps import mapped_ranges

# Resolve these at import: cffi's first lookup allocates, in each copy.
_go_on_from = lib.lcp_go_on_from


class Clocks:
    """The clocks of this process around one dump."""

    def __init__(self) -> None:
        """Replace their C functions, by ones that read the kernel's clock as before until `go_on`."""
        names = ("monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns")
        functions = (clock.builtin(name) or getattr(time, name) for name in names)
        methods = [(name, _method(function)) for name, function in zip(names, functions, strict=True)]
        writable = [(area.start, area.end) for area in mapped_ranges(having=" rw") if area.permissions[1] == "w"]
        self._replaced = [
            (method, lib.lcp_replace_clock(method, name.endswith("_ns")))
            for name, method in methods
            if any(start <= method < end for start, end in writable)
        ]
        self.reading = time.monotonic_ns()
        """From where they go on."""

    def go_on(self) -> None:
        """Let the clocks of this copy go on from the dump."""
        _go_on_from(self.reading)

    def put_back(self) -> None:
        """Put back the functions, in the original."""
        for method, former in self._replaced:
            lib.lcp_put_back_clock(method, former)


def _method(function: object) -> int:
    """Return the address of the PyMethodDef of a built-in function, behind its header; 0 if there is none."""
    if sys.implementation.name != "cpython" or not isinstance(function, BuiltinFunctionType):
        return 0
    at = ffi.cast("uintptr_t *", id(function) + object.__basicsize__)
    return int(at[0])
