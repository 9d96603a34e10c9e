"""
`numba`: reseed in each copy what compiled functions draw from for `random` and `numpy.random`.

Compiled code has its own generators: per module and thread, a Mersenne Twister that seeds itself from the kernel at its
first use (numba/_random.c). Its state does not show whether a compiled function seeded it on purpose; it is reseeded
anyway, like the generators that the two modules share.

A thread can reach only its own generators. So those of the thread that takes the checkpoint are reseeded, where a
program's own code usually runs, but not those of the threads of `prange`.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable

_STATE = 624 * 4
"""Bytes of a state; numba itself seeds with as many (rnd_implicit_init)."""


class NumbaRandom(BuiltIn):
    """
    The generators of compiled functions, in the thread that takes the checkpoint.

    Args:
        keep_seeded: Whether they keep their sequences: all of them, because seeded ones cannot be told apart.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._seeds: list[Callable[[bytes], object]] = []

    def before_dump(self) -> None:
        """Find the states of this thread."""
        helpers: Any = sys.modules.get("numba._helperlib")
        if helpers is None or self._keep:
            return
        states = (helpers.rnd_get_py_state_ptr(), helpers.rnd_get_np_state_ptr())
        self._seeds = [partial(helpers.rnd_seed, state) for state in states]

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed them from the kernel."""
        for seed in self._seeds:
            seed(os.urandom(_STATE))
        self.in_original()
