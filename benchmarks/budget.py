"""Decide how many rounds there are: as many as fit into a time, within bounds."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from benchmarks.common import round_robin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.common import T

LEAST = 5
"""Rounds that are made even where that takes longer than planned: the median of fewer says little."""
STRETCH = 1.5
"""How many times the planned time may be taken for these."""


class Budget:
    """Rounds, and the time that they have."""

    def __init__(self, most: int, seconds: float | None = None) -> None:
        """
        Begin now.

        Args:
            most: Rounds at most; without a time, just as many.
            seconds: The time; None for as long as it takes.
        """
        now = time.monotonic()
        self.most = most
        self.least = most if seconds is None else min(LEAST, most)
        self.end = math.inf if seconds is None else now + seconds
        """Until when more than the least number of rounds are begun."""
        self.last = math.inf if seconds is None else now + STRETCH * seconds
        """Until when any are, but for one."""

    @property
    def exhausted(self) -> bool:
        """Return whether there is no time to begin anything more."""
        return time.monotonic() >= self.last

    def part(self, left: int) -> Budget:
        """
        Return the share of the time left for one of several parts.

        What a part does not use the later ones have.

        Args:
            left: How many there are still to be measured, this one included.
        """
        now = time.monotonic()
        part = Budget(self.most)
        part.least = self.least
        part.end = now + (self.end - now) / left
        part.last = now + (self.last - now) / left
        return part

    def allows(self, done: int, seconds: float) -> bool:
        """
        Return whether another round is to be made.

        Args:
            done: How many were made, those that do not count left out.
            seconds: What one takes.
        """
        if done == 0:
            return True
        if done >= self.most:
            return False
        return time.monotonic() + seconds <= (self.end if done >= self.least else self.last)

    def rounds(self, items: Sequence[T], warm_up: int) -> Iterator[tuple[int, T]]:
        """
        Yield every item once in each round, as `round_robin` does, for as many rounds as there may be.

        Args:
            items: What to measure in turns.
            warm_up: Rounds before those that count.
        """
        begun = 0.0
        longest = 0.0
        turns = round_robin(items, warm_up + self.most)
        for turn, (number, item) in enumerate(turns):
            if turn % len(items) == 0:
                now = time.monotonic()
                # The first round fills caches, and says nothing about the others.
                longest = max(longest, now - begun) if number > 1 else now - begun
                begun = now
                if number > warm_up and not self.allows(number - warm_up, longest):
                    return
            elif number > warm_up and self.exhausted:
                return
            yield number, item
