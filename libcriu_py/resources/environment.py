"""
The program's own changes to its environment, and PYTHON* variables of the new one that can still take effect.

The changes are found here; the hand-over applies them to the new environment (`program.environment`).

PYTHON* variables that an interpreter reads only at its start cannot take effect: see `program.start_variables`. Those
that it reads on use (PYTHONBREAKPOINT, PYTHONASYNCIODEBUG, PYTHONINSPECT) need nothing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.linux.this_process import set_flag
from libcriu_py.program import environment as own_variables
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable


class Environment(BuiltIn):
    """The program's changes, and the variables in `_APPLY`."""

    def __init__(self) -> None:
        self._old: dict[bytes, bytes] = {}

    def before_dump(self) -> None:
        """Record what the program has changed, and the variables at the dump."""
        own_variables.find_changes()
        self._old = _variables()

    def before_dump_last(self) -> bool:
        """Return whether Python heeds these variables."""
        return not sys.flags.ignore_environment

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Apply the variables that differ from those at the dump."""
        if sys.flags.ignore_environment:
            return
        variables = _variables()
        if variables == self._old:
            return
        for name, apply in _APPLY.items():
            old, new = self._old[name], variables[name]
            if old != new:
                apply(os.fsdecode(old), os.fsdecode(new))


def _variables() -> dict[bytes, bytes]:
    data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]  # noqa: SLF001 - without its encoding
    return {name: data.get(name, b"") for name in _APPLY}


def _path(old: str, new: str) -> None:
    """Replace the entries of PYTHONPATH, which come after the program's own directory."""
    for entry in _entries(old):
        if entry in sys.path:
            sys.path.remove(entry)
    place = 1 if sys.path and not getattr(sys.flags, "safe_path", False) else 0
    sys.path[place:place] = [entry for entry in _entries(new) if entry not in sys.path]


def _entries(text: str) -> list[str]:
    return [os.path.abspath(entry) for entry in text.split(os.pathsep)] if text else []


def _warnings(old: str, new: str) -> None:
    """Replace the filters of PYTHONWARNINGS."""
    import warnings

    module: Any = warnings
    filters: Any = warnings.filters
    for option in filter(None, old.split(",")):
        if option in sys.warnoptions:
            sys.warnoptions.remove(option)
        first = filters[0] if filters else None
        # Moves an existing filter to the front (Lib/warnings.py, _add_filter).
        module._processoptions([option])  # noqa: SLF001
        if filters and filters[0] is not first:
            del filters[0]
    added = [option for option in new.split(",") if option]
    sys.warnoptions[:0] = added
    module._processoptions(added)  # noqa: SLF001
    module._filters_mutated()  # noqa: SLF001


def _bytecode(old: str, new: str) -> None:  # noqa: ARG001
    sys.dont_write_bytecode = bool(new)
    set_flag("dont_write_bytecode", int(bool(new)))  # by which those of subprocesses are told


def _cache_prefix(old: str, new: str) -> None:  # noqa: ARG001
    sys.pycache_prefix = new or None


def _digits(old: str, new: str) -> None:  # noqa: ARG001
    if hasattr(sys, "set_int_max_str_digits"):
        sys.set_int_max_str_digits(int(new or sys.int_info.default_max_str_digits))


def _tracemalloc(old: str, new: str) -> None:  # noqa: ARG001
    import tracemalloc

    tracemalloc.stop()
    if new and new != "0":
        tracemalloc.start(int(new))


def _faulthandler(old: str, new: str) -> None:  # noqa: ARG001
    import faulthandler

    if new:
        faulthandler.enable()
    else:
        faulthandler.disable()


_APPLY: dict[bytes, Callable[[str, str], None]] = {
    b"PYTHONPATH": _path,
    b"PYTHONWARNINGS": _warnings,
    b"PYTHONDONTWRITEBYTECODE": _bytecode,
    b"PYTHONPYCACHEPREFIX": _cache_prefix,
    b"PYTHONINTMAXSTRDIGITS": _digits,
    b"PYTHONTRACEMALLOC": _tracemalloc,
    b"PYTHONFAULTHANDLER": _faulthandler,
}
Environment.variables = tuple(_APPLY)
