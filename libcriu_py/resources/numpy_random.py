"""
`numpy.random`: generators made without a seed, and the legacy functions' own, draw anew in each copy.

A SeedSequence made without entropy draws 128 bits for itself and keeps them in `entropy`
(numpy/random/bit_generator.pyx). An entropy of more than 96 bits is taken for such; so a seed of 128 bits written
into a program, as numpy's documentation suggests, is not told apart: switch off "numpy" for it. A legacy
RandomState that was given a seed has no SeedSequence and keeps its sequence.
"""

from __future__ import annotations

import sys
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn, live

_DRAWN_BITS = 96
"""Of 128 random bits, the chance that the highest 32 are all 0 is 2**-32."""


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
        self._sequences: list[Any] = []
        self._generators: list[Any] = []
        self._shared = False

    def let_go(self) -> None:
        """
        Find what was not seeded.
        """
        shared = self._numpy.get_state.__self__._bit_generator  # noqa: SLF001
        found = [*live(self._numpy.BitGenerator), shared]
        for generator in {id(item): item for item in found}.values():
            sequence = getattr(generator, "seed_seq", None)
            if is_drawn(sequence):
                self._generators.append(generator)
            elif generator is shared:
                self._shared = not self._keep_seeded
        self._sequences = [item for item in live(self._numpy.SeedSequence) if is_drawn(item)]
        known = {id(item) for item in self._sequences}
        self._sequences += [item.seed_seq for item in self._generators if id(item.seed_seq) not in known]

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """
        Draw new entropy, and new states.
        """
        for sequence in self._sequences:
            # Again without entropy, in place: generators spawned later must differ too.
            sequence.__init__(spawn_key=sequence.spawn_key, pool_size=sequence.pool_size)
        for generator in self._generators:
            generator.state = type(generator)().state
        if self._shared:
            self._numpy.seed()
        self.come_back()

    def come_back(self) -> None:
        """
        The original goes on drawing.
        """
        self._sequences, self._generators, self._shared = [], [], False


def is_drawn(sequence: Any) -> bool:
    """
    Tell whether a seed sequence drew its own entropy.
    """
    entropy = getattr(sequence, "entropy", None)
    return isinstance(entropy, int) and entropy.bit_length() > _DRAWN_BITS
