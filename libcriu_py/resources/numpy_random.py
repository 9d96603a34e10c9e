"""
`numpy.random`: reseed generators made without a seed, and that of the legacy functions, in each copy.

A SeedSequence made without entropy draws 128 bits and keeps them in `entropy` (numpy/random/bit_generator.pyx). An
entropy of more than 96 bits counts as drawn. A 128-bit seed written into a program, as numpy's documentation suggests,
looks the same: switch off "numpy" for it. A seeded legacy RandomState has no SeedSequence and keeps its sequence.

Seeding a generator runs much of numpy, whose pages a copy would have to touch. So Mersenne Twister, which is behind the
legacy functions and so in every program, gets its words straight from the kernel. A RandomState also holds the second
number of a pair of normal ones; setting the state through it drops that number.
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
"""An entropy longer than this was drawn: the highest 32 of 128 random bits are all 0 with a chance of 2**-32."""

_WORDS = 624
"""32-bit words in the state of Mersenne Twister; as a position, it makes the next draw mix all of them."""


class NumpyRandom(BuiltIn):
    """
    numpy's bit generators and seed sequences.

    Args:
        keep_seeded: Whether the generator of `numpy.random.rand()` and the like keeps its sequence if
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

    def before_dump(self) -> None:
        """Find the unseeded generators."""
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

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Draw new entropy and new states."""
        for sequence in self._sequences:
            # In place, so that generators spawned later differ too.
            entropy = int.from_bytes(os.urandom(16), "little")
            sequence.__init__(entropy, spawn_key=sequence.spawn_key, pool_size=sequence.pool_size)
        for set_state in self._twisters:
            words = self._frombuffer(os.urandom(4 * _WORDS), self._word)
            set_state({"bit_generator": "MT19937", "state": {"key": words, "pos": _WORDS}})
        for generator, set_state in self._generators:
            set_state(type(generator)(generator.seed_seq).state)
        if self._shared:
            self._numpy.seed()
        self.in_original()


def is_drawn(sequence: Any) -> bool:
    """Return whether a seed sequence drew its own entropy."""
    entropy = getattr(sequence, "entropy", None)
    return isinstance(entropy, int) and entropy.bit_length() > _DRAWN_BITS
