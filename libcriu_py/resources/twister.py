"""
A Mersenne Twister of C++ (std::mt19937_64) that a library keeps to itself: found in memory by its numbers.

A number is made of one word of the state by steps that can be undone; 312 words are followed by the index of the next
(libstdc++, bits/random.h, mersenne_twister_engine). So a few numbers in a row are a pattern to look for. That what was
found is it is proved by foretelling the next number.
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
    The state of one.

    Attributes:
        address: Of its first word.
    """

    address: int

    @classmethod
    def find(cls, draw: Callable[[], int]) -> Twister | None:
        """
        Find the state behind a function.

        Args:
            draw: Gives its next number.

        Returns:
            None where it is not there, or where other threads draw from it all the time.
        """
        draw()  # makes it, if it is not there yet
        for _ in range(_TRIES):
            # A block of numbers may end among these, or another thread draw one: then try again.
            pattern = struct.pack(f"={_PATTERN}Q", *(word_of(draw()) for _ in range(_PATTERN)))
            for place in _search(pattern):
                begins = _begins(place)
                if not begins or _foretell(begins[0][0]) != draw():
                    continue
                # Any word behind the state may look like its index, but only the index counts the draws.
                counted = [address for address, index in begins if _index(address) == index + 1]
                if len(counted) == 1:
                    return cls(counted[0])
        return None

    def seed(self) -> None:
        """Fill the state from the kernel, and have all of it mixed with the next number."""
        import ctypes

        ctypes.memmove(self.address, os.urandom(8 * _WORDS) + struct.pack("=Q", _WORDS), 8 * _WORDS + 8)


def number_of(word: int) -> int:
    """Make a number of a word of the state."""
    for shift, mask in _STEPS:
        word ^= _shifted(word, shift) & mask
    return word


def word_of(number: int) -> int:
    """Return the word of the state that a number was made of."""
    for shift, mask in reversed(_STEPS):
        word = number
        # Each round has `shift` more bits right.
        for _ in range(64 // abs(shift) + 1):
            word = number ^ _shifted(word, shift) & mask
        number = word
    return number


def _shifted(word: int, shift: int) -> int:
    return word >> shift if shift > 0 else word << -shift & _MASK


def _begins(place: int) -> list[tuple[int, int]]:
    """Return where a state may begin of which words up to the index have been found, each with that index."""
    areas = _areas()
    found = [(place - 8 * (index - _PATTERN), index) for index in range(_PATTERN, _WORDS)]
    readable = [one for one in found if any(start <= one[0] + 8 * _WORDS < end for start, end in areas)]
    return [(address, index) for address, index in readable if _index(address) == index]


def _index(address: int) -> int:
    import ctypes

    return ctypes.c_uint64.from_address(address + 8 * _WORDS).value


def _foretell(address: int) -> int:
    import ctypes

    words = (ctypes.c_uint64 * (_WORDS + 1)).from_address(address)
    return number_of(words[words[_WORDS]])


def _search(pattern: bytes) -> Iterator[int]:
    """Yield where a pattern is in the memory that allocators have."""
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
    """Return the private areas of memory without a file that can be written, [heap] first."""
    found: list[tuple[int, int]] = []
    for mapped in mapped_ranges():
        if mapped.permissions == "rw-p" and mapped.path in {"", "[heap]"}:
            found.insert(0 if mapped.path else len(found), (mapped.start, mapped.end))
    return found
