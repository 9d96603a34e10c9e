"""
`uuid`: make time-based UUIDs of two copies differ even within the same 100 nanoseconds.

libuuid keeps its clock sequence in unreachable static memory (libuuid/src/gen_uuid.c, get_clock), so it is replaced in
the result of uuid1(). The node is read again: the copy may run on another machine. uuid4() asks the kernel.
"""

from __future__ import annotations

import os
import uuid
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn

_CLOCK_SEQUENCE = slice(8, 10)
_VARIANT, _HIGH_BITS = 0x80, 0x3F


class Uuid(BuiltIn):
    """The state of the module `uuid`."""

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Draw a new clock sequence; drop the node and the last timestamps."""
        module: Any = uuid
        module._node = None  # noqa: SLF001
        module._last_timestamp = None  # noqa: SLF001
        for name in ("_last_timestamp_v6", "_last_timestamp_v7"):
            if hasattr(module, name):
                setattr(module, name, None)
        generate = module._generate_time_safe  # noqa: SLF001
        if generate is not None:
            module._generate_time_safe = _with_sequence(generate, os.urandom(2))  # noqa: SLF001


def _with_sequence(generate: Any, sequence: bytes) -> Any:
    """Wrap libuuid's function to replace the clock sequence."""
    generate = getattr(generate, "libcriu_py_original", generate)
    changed = bytes([_VARIANT | sequence[0] & _HIGH_BITS, sequence[1]])

    def generate_time_safe() -> tuple[bytes, int]:
        data, safe = generate()
        return data[: _CLOCK_SEQUENCE.start] + changed + data[_CLOCK_SEQUENCE.stop :], safe

    generate_time_safe.libcriu_py_original = generate  # type: ignore[attr-defined]
    return generate_time_safe
