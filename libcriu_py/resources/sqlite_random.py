"""
SQLite's `random()` and `randomblob()`: no two copies draw the same.

The generator belongs to the library, so new connections share it, and it is seeded only once (sqlite3, src/random.c).
`sqlite3_randomness(0, NULL)` makes its next use seed it again. A process may have several libraries.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable


class SqliteRandom(BuiltIn):
    """The generators of every SQLite in the process that can be reached."""

    def __init__(self) -> None:
        self._resets: list[Callable[[], object]] = []

    def before_dump(self) -> None:
        """Find them."""
        import ctypes

        addresses: set[int | None] = set()
        for path in _libraries():
            function = getattr(ctypes.CDLL(path), "sqlite3_randomness", None)
            address = ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
            if function is not None and address not in addresses:
                addresses.add(address)
                function.argtypes, function.restype = (ctypes.c_int, ctypes.c_void_p), None
                self._resets.append(partial(function, 0, None))
        apsw: Any = sys.modules.get("apsw")
        if hasattr(apsw, "randomness"):
            self._resets.append(partial(apsw.randomness, 0))  # its library hides its symbols

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Make the next use of each seed it again."""
        for reset in self._resets:
            reset()


def _libraries() -> list[str | None]:
    """Return the loaded libraries to look in; None, the program itself, where Python's module is built in."""
    module: Any = sys.modules.get("_sqlite3")
    builtin = [None] if module is not None and not hasattr(module, "__file__") else []
    paths = {mapped.path for mapped in mapped_ranges(having="sqlite") if "x" in mapped.permissions}
    return [
        *builtin,
        *sorted(path for path in paths if "sqlite" in os.path.basename(path) and not path.endswith("(deleted)")),
    ]
