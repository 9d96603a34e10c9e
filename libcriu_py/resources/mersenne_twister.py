"""
Find a library's private Mersenne Twister (C++'s std::mt19937_64) in memory by its output, and reseed it.

Each number is one word of the state after invertible steps. The state is 312 words, followed by the index of the next
(libstdc++, bits/random.h, mersenne_twister_engine). So consecutive numbers give words to search for; predicting the
next number proves a match.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.maps import mapped_ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WORDS = 312
_PATTERN = 8  # words
_TRIES = 8
_MASK = (1 << 64) - 1
_CHUNK = 1 << 24
# Shift (to the right where positive) and mask of each step (random.tcc, operator()).
_STEPS = ((29, 0x5555555555555555), (-17, 0x71D67FFFEDA60000), (-37, 0xFFF7EEE000000000), (43, _MASK))


class Twister(NamedTuple):
    """
    A generator's state in memory.

    Attributes:
        address: The address of its first word.
    """

    address: int

    @classmethod
    def find(cls, draw: Callable[[], int]) -> Twister | None:
        """
        Find the state behind a function.

        Args:
            draw: Returns the generator's next number.

        Returns:
            The state; None if it was not found, or other threads keep drawing from it.
        """
        draw()  # the first call makes it
        for _ in range(_TRIES):
            # Try again if the state is refilled in between, or another thread draws a number.
            pattern = struct.pack(f"={_PATTERN}Q", *(word_of(draw()) for _ in range(_PATTERN)))
            for place in _search(pattern):
                begins = _begins(place)
                if not begins or _predict(begins[0][0]) != draw():
                    continue
                # Another word may look like the index, but only the index counts draws.
                counted = [address for address, index in begins if _index(address) == index + 1]
                if len(counted) == 1:
                    return cls(counted[0])
        return None

    def seed(self) -> None:
        """Fill the state with random bytes from the kernel, and make the next draw mix all of it."""
        import ctypes

        ctypes.memmove(self.address, os.urandom(8 * _WORDS) + struct.pack("=Q", _WORDS), 8 * _WORDS + 8)


def number_of(word: int) -> int:
    """Return the number that a word of the state gives."""
    for shift, mask in _STEPS:
        word ^= _shifted(word, shift) & mask
    return word


def word_of(number: int) -> int:
    """Return the word of the state that gave a number."""
    for shift, mask in reversed(_STEPS):
        word = number
        # Each round recovers `shift` more bits.
        for _ in range(64 // abs(shift) + 1):
            word = number ^ _shifted(word, shift) & mask
        number = word
    return number


def _shifted(word: int, shift: int) -> int:
    return word >> shift if shift > 0 else word << -shift & _MASK


def _begins(place: int) -> list[tuple[int, int]]:
    """Return the possible addresses of a state whose last used words are at `place`, each with its index."""
    areas = _areas()
    found = [(place - 8 * (index - _PATTERN), index) for index in range(_PATTERN, _WORDS)]
    readable = [one for one in found if any(start <= one[0] + 8 * _WORDS < end for start, end in areas)]
    return [(address, index) for address, index in readable if _index(address) == index]


def _index(address: int) -> int:
    import ctypes

    return ctypes.c_uint64.from_address(address + 8 * _WORDS).value


def _predict(address: int) -> int:
    import ctypes

    words = (ctypes.c_uint64 * (_WORDS + 1)).from_address(address)
    return number_of(words[words[_WORDS]])


def _search(pattern: bytes) -> Iterator[int]:
    """Yield the addresses of a pattern in anonymous memory and the heap."""
    memory = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for start, end in _areas():
            for offset in range(start, end, _CHUNK):
                chunk = os.pread(memory, min(_CHUNK + len(pattern), end - offset), offset)
                found = chunk.find(pattern)
                if found >= 0 and (offset + found) % 8 == 0:
                    yield offset + found
    finally:
        os.close(memory)


def _areas() -> list[tuple[int, int]]:
    """Return the private, writable, anonymous areas of memory, [heap] first."""
    found: list[tuple[int, int]] = []
    for mapped in mapped_ranges():
        if mapped.permissions == "rw-p" and mapped.path in {"", "[heap]"}:
            found.insert(0 if mapped.path else len(found), (mapped.start, mapped.end))
    return found
