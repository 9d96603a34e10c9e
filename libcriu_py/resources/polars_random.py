"""
`polars`: what `sample` and `shuffle` draw without a seed differs between copies.

The library draws seeds from one generator. Whether `polars.set_random_seed()` was called cannot be detected.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class PolarsRandom(BuiltIn):
    """The library's generator."""

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed it from the kernel."""
        module: Any = sys.modules["polars"]
        module.set_random_seed(int.from_bytes(os.urandom(8), "little"))
