"""
`keras`: reseed seed generators made without a seed, including the global one, in each copy.

Keras keeps a given seed in `_initial_seed`, and draws one from Python's `random` if that is None
(keras/src/random/seed_generator.py); the state is a seed and a count with every backend.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class KerasRandom(BuiltIn):
    """
    The seed generators of Keras 3.

    Args:
        keep_seeded: Whether they keep their sequence if `keras.utils.set_random_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._found: list[Any] = []

    def before_dump(self) -> None:
        """Find the unseeded generators."""
        module: Any = sys.modules.get("keras.src.random.seed_generator")
        state: Any = sys.modules.get("keras.src.backend.common.global_state")
        if module is None or state is None:
            return
        if self._keep and state.get_global_attribute("global_random_seed") is not None:
            return
        self._found = [item for item in live(module.SeedGenerator) if item._initial_seed is None]  # noqa: SLF001

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Reseed each."""
        for generator in self._found:
            # 30 bits, as Keras draws (make_default_seed).
            generator.state.assign([int.from_bytes(os.urandom(4), "little") >> 2, 0])
        self.in_original()
