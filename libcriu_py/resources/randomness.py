"""
`random`: no two copies draw the same numbers.

A generator that was made with a seed keeps its sequence, since a conventional start gives it the same one (`seeding`
tells how that is known). The generator behind `random.random()` belongs to everybody, and is seeded anew even
so, unless `keep_seeded`.
"""

from __future__ import annotations

import random

from libcriu_py.resources.base import Arrival, BuiltIn, live
from libcriu_py.resources.seeding import is_seeded, unwatch


class Random(BuiltIn):
    """
    The generator of the module `random`, and every `random.Random`.

    Args:
        keep_seeded: Whether the generator of the module keeps its sequence where it was seeded on purpose.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep_seeded = keep_seeded
        self._found: list[random.Random] = []

    def let_go(self) -> None:
        """
        Find the generators.
        """
        shared: random.Random = random._inst  # noqa: SLF001
        self._found = [
            generator
            for generator in live(random.Random)
            if not isinstance(generator, random.SystemRandom)
            and not is_seeded(generator)
            and generator is not shared
        ]
        if not (self._keep_seeded and is_seeded(shared)):
            self._found.append(shared)

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """
        Seed them from the kernel.
        """
        unwatch()
        for generator in self._found:
            # The class's own: a subclass that overrides seed() may count on an argument.
            random.Random.seed(generator)
        self._found = []

    def come_back(self) -> None:
        """
        The original goes on drawing.
        """
        self._found = []
