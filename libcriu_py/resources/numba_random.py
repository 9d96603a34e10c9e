"""
`numba`: what compiled functions draw from `random` and `numpy.random` differs in each copy.

Compiled code has generators of its own, not those of the two modules: a Mersenne Twister for each, and for each thread
(numba/_random.c), which seeds itself from the kernel when it is first used. Whether one was seeded on purpose, by a
compiled function, does not show in it. It is seeded anew even so, as those that the modules' own functions share are.

A thread can ask for its own alone. So those of the thread that takes the checkpoint are put right, which is where a
program's own code runs as a rule, and not those of the threads of `prange`.
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
"""Bytes of a state; with as many numba itself seeds (rnd_implicit_init)."""


class NumbaRandom(BuiltIn):
    """
    The generators of compiled functions, in the thread that takes the checkpoint.

    Args:
        keep_seeded: Whether they keep their sequences; that is for all, since seeded ones are not told apart.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep = keep_seeded
        self._seeds: list[Callable[[bytes], object]] = []

    def let_go(self) -> None:
        """Find the states of this thread."""
        helpers: Any = sys.modules.get("numba._helperlib")
        if helpers is None or self._keep:
            return
        states = (helpers.rnd_get_py_state_ptr(), helpers.rnd_get_np_state_ptr())
        self._seeds = [partial(helpers.rnd_seed, state) for state in states]

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed them from the kernel."""
        for seed in self._seeds:
            seed(os.urandom(_STATE))
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing."""
        self._seeds = []
