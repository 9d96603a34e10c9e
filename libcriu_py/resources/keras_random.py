"""
`keras`: seed generators made without a seed, the global one among them, begin anew in each copy.

Keras keeps what it was given in `_initial_seed`, and draws from Python's `random` where that is None
(keras/src/random/seed_generator.py); its state is a pair of seed and count, whatever the backend.
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
        keep_seeded: Whether they keep their sequence where `keras.utils.set_random_seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._found: list[Any] = []

    def let_go(self) -> None:
        """Find those that nobody seeded."""
        module: Any = sys.modules.get("keras.src.random.seed_generator")
        state: Any = sys.modules.get("keras.src.backend.common.global_state")
        if module is None or state is None:
            return
        if self._keep and state.get_global_attribute("global_random_seed") is not None:
            return
        self._found = [item for item in live(module.SeedGenerator) if item._initial_seed is None]  # noqa: SLF001

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Reseed each."""
        for generator in self._found:
            # As large as Keras draws them (make_default_seed).
            generator.state.assign([int.from_bytes(os.urandom(4), "little") >> 2, 0])
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing."""
        self._found = []
