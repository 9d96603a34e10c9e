"""
`numpy.random`: generators made without a seed, and the legacy functions' own, draw anew in each copy.

A SeedSequence made without entropy draws 128 bits for itself and keeps them in `entropy`
(numpy/random/bit_generator.pyx). An entropy of more than 96 bits is taken for such; so a seed of 128 bits written
into a program, as numpy's documentation suggests, is not told apart: switch off "numpy" for it. A legacy
RandomState that was given a seed has no SeedSequence and keeps its sequence.

A new generator draws its state through much of numpy, which a copy would have to touch. So Mersenne Twister, which is
behind the legacy functions and so in every program, gets its words from the kernel. A RandomState has a number of its
own besides, the second one of a pair of normal ones; it goes when the state is set through it.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Callable

_DRAWN_BITS = 96
"""Of 128 random bits, the chance that the highest 32 are all 0 is 2**-32."""

_WORDS = 624
"""Of 32 bits, in the state of Mersenne Twister; with so many used, the next number has all of them mixed."""


class NumpyRandom(BuiltIn):
    """
    numpy's bit generators and seed sequences.

    Args:
        keep_seeded: Whether the generator of `numpy.random.rand()` and its like keeps its sequence where
            `numpy.random.seed()` was called.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep_seeded = keep_seeded
        self._numpy: Any = sys.modules["numpy.random"]
        self._frombuffer, self._word = sys.modules["numpy"].frombuffer, sys.modules["numpy"].uint32
        self._sequences: list[Any] = []
        self._twisters: list[Callable[[Any], object]] = []
        self._generators: list[tuple[Any, Callable[[Any], object]]] = []
        self._shared = False

    def let_go(self) -> None:
        """Find what was not seeded."""
        legacy = self._numpy.get_state.__self__
        owners = {id(item._bit_generator): item for item in [*live(self._numpy.RandomState), legacy]}  # noqa: SLF001
        shared = legacy._bit_generator  # noqa: SLF001
        found = [*live(self._numpy.BitGenerator), shared]
        drawn = []
        for generator in {id(item): item for item in found}.values():
            sequence = getattr(generator, "seed_seq", None)
            if is_drawn(sequence):
                drawn.append(generator)
            elif generator is shared:
                self._shared = not self._keep_seeded
        self._sequences = [item for item in live(self._numpy.SeedSequence) if is_drawn(item)]
        known = {id(item) for item in self._sequences}
        self._sequences += [item.seed_seq for item in drawn if id(item.seed_seq) not in known]
        for generator in drawn:
            owner = owners.get(id(generator))
            set_state = partial(setattr, generator, "state") if owner is None else owner.set_state
            if type(generator) is self._numpy.MT19937:
                self._twisters.append(set_state)
            else:
                self._generators.append((generator, set_state))

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Draw new entropy, and new states."""
        for sequence in self._sequences:
            # In place: generators spawned later must differ too.
            entropy = int.from_bytes(os.urandom(16), "little")
            sequence.__init__(entropy, spawn_key=sequence.spawn_key, pool_size=sequence.pool_size)
        for set_state in self._twisters:
            words = self._frombuffer(os.urandom(4 * _WORDS), self._word)
            set_state({"bit_generator": "MT19937", "state": {"key": words, "pos": _WORDS}})
        for generator, set_state in self._generators:
            set_state(type(generator)(generator.seed_seq).state)
        if self._shared:
            self._numpy.seed()
        self.come_back()

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing."""
        self._sequences, self._twisters, self._generators, self._shared = [], [], [], False


def is_drawn(sequence: Any) -> bool:
    """Return whether a seed sequence drew its own entropy."""
    entropy = getattr(sequence, "entropy", None)
    return isinstance(entropy, int) and entropy.bit_length() > _DRAWN_BITS
