"""
`random`: reseed generators, so that no two copies draw the same numbers.

A generator that the program seeded keeps its sequence, as a conventional start would repeat it too (`program.seeding`
knows which those are). The generator behind `random.random()` is shared by all code, so it is reseeded anyway unless
`keep_seeded` is set.
"""

from __future__ import annotations

import _random
import random

from libcriu_py.program.objects import live
from libcriu_py.program.seeding import is_seeded, unwatch, watch
from libcriu_py.resources.base import Arrival, BuiltIn


class Random(BuiltIn):
    """
    The generator of the module `random`, and every `random.Random`.

    Args:
        keep_seeded: Whether the generator of the module keeps its sequence if the program seeded it.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep_seeded = keep_seeded
        self._found: list[random.Random] = []
        self._watched = False

    def before_dump(self) -> None:
        """Find the generators to reseed, and stop watching seeds: copies do not need it."""
        shared: random.Random = random._inst  # noqa: SLF001
        self._found = [
            generator
            for generator in live(random.Random)
            if not isinstance(generator, random.SystemRandom) and not is_seeded(generator) and generator is not shared
        ]
        if not (self._keep_seeded and is_seeded(shared)):
            self._found.append(shared)
        self._watched = unwatch()

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed them from the kernel."""
        for generator in self._found:
            # What random.Random.seed() does without an argument. A subclass's own seed() may need one.
            _random.Random.seed(generator)
            generator.gauss_next = None  # type: ignore[attr-defined]
        self._found = []

    def in_original(self) -> None:
        """Watch seeds again, as before; the original's generators keep their sequences."""
        self._found = []
        if self._watched:
            watch()
