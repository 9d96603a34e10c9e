"""
`random`: no two copies draw the same numbers.

A generator that was made with a seed keeps its sequence, since a conventional start gives it the same one (`seeding`
tells how that is known). The generator behind `random.random()` belongs to everybody, and is seeded anew even
so, unless `keep_seeded`.
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
        keep_seeded: Whether the generator of the module keeps its sequence where it was seeded on purpose.
    """

    def __init__(self, *, keep_seeded: bool = False) -> None:
        self._keep_seeded = keep_seeded
        self._found: list[random.Random] = []
        self._watched = False

    def let_go(self) -> None:
        """Find the generators. In copies nothing is to be told from then on."""
        shared: random.Random = random._inst  # noqa: SLF001
        self._found = [
            generator
            for generator in live(random.Random)
            if not isinstance(generator, random.SystemRandom) and not is_seeded(generator) and generator is not shared
        ]
        if not (self._keep_seeded and is_seeded(shared)):
            self._found.append(shared)
        self._watched = unwatch()

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Seed them from the kernel."""
        for generator in self._found:
            # Not its own seed(): one that a subclass overrides may count on an argument. This is what that of
            # random.Random does without one.
            _random.Random.seed(generator)
            generator.gauss_next = None  # type: ignore[attr-defined]
        self._found = []

    def come_back(self) -> None:
        """Do nothing: the original goes on drawing, and seeding."""
        self._found = []
        if self._watched:
            watch()
