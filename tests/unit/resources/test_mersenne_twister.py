"""A Mersenne Twister in memory, found by its numbers alone."""

from __future__ import annotations

import ctypes

import pytest

from libcriu_py.resources.mersenne_twister import Twister, number_of, word_of

WORDS = 312


class Engine:
    """std::mt19937_64 as libstdc++ lays it out (bits/random.tcc), with its usual seed."""

    def __init__(self, seed: int = 5489) -> None:
        self.state = (ctypes.c_uint64 * (WORDS + 1 + 100))()  # and what lies behind it in memory
        self.state[0] = seed
        for place in range(1, WORDS):
            before = self.state[place - 1]
            self.state[place] = 6364136223846793005 * (before ^ before >> 62) + place
        self.state[WORDS] = WORDS

    def draw(self) -> int:
        """Return the next number."""
        index = self.state[WORDS]
        if index >= WORDS:
            self._mix()
            index = 0
        self.state[WORDS] = index + 1
        return number_of(self.state[index])

    def _mix(self) -> None:
        words = self.state
        for place in range(WORDS):
            upper = words[place] & ~0x7FFFFFFF | words[(place + 1) % WORDS] & 0x7FFFFFFF
            words[place] = words[(place + WORDS // 2) % WORDS] ^ upper >> 1 ^ (0xB5026F5AA96619E9 if upper & 1 else 0)


def test_numbers_are_those_of_the_standard() -> None:
    """The 10,000th number is what ISO C++ demands ([rand.predef]); a word comes back from its number."""
    engine = Engine()
    for _ in range(9999):
        engine.draw()
    assert engine.draw() == 9981545732273789042
    for word in (0, 1, (1 << 64) - 1, 0x0123456789ABCDEF):
        assert word_of(number_of(word)) == word


@pytest.mark.parametrize("used", [0, 100, 305, 311])
def test_state_is_found_and_seeded(used: int) -> None:
    """Wherever its index is, also where a block ends among the numbers that are drawn for the search."""
    engine = Engine(used)
    for _ in range(used):
        engine.draw()
    found = Twister.find(engine.draw)
    assert found is not None
    assert found.address == ctypes.addressof(engine.state)
    before = list(engine.state)
    foretold = [Engine.draw(engine) for _ in range(4)]
    found.seed()
    assert [engine.draw() for _ in range(4)] != foretold
    assert not set(engine.state[:WORDS]) & set(before[:WORDS])


def test_what_looks_like_the_index_is_not_taken_for_it() -> None:
    """A word behind the state that fits an earlier beginning does not count the numbers that are drawn."""
    engine = Engine()
    engine.state[WORDS + 68] = 1 + 8 + 100 - 68
    for _ in range(100):
        engine.draw()
    found = Twister.find(engine.draw)
    assert found is not None
    assert found.address == ctypes.addressof(engine.state)


def test_what_is_no_twister_is_not_found() -> None:
    """Nothing is taken for it by chance."""
    import random

    assert Twister.find(lambda: random.getrandbits(64)) is None
