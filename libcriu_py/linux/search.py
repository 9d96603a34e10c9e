"""Looking for several texts, or for numbers, at once in much data (csrc/common/search.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.linux.ffi import ffi, lib

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable, Sequence


class Search:
    """What to look for."""

    def __init__(self, texts: Sequence[bytes]) -> None:
        """
        Prepare the search.

        Args:
            texts: Up to 32, of 8 bytes or more.
        """
        self._texts = texts
        self._held = [ffi.new("char[]", text) for text in texts]
        self._pointers = ffi.new("char *[]", self._held)
        self._sizes = ffi.new("size_t[]", [len(text) for text in texts])

    def find(self, data: mmap.mmap, parts: Iterable[tuple[int, int]]) -> set[bytes]:
        """
        Return which texts are in one of the parts of a mapped file.

        Args:
            data: The file.
            parts: Where the parts begin and end.
        """
        found = 0
        with ffi.from_buffer(data) as whole:
            for start, end in parts:
                low, high = min(start, len(data)), min(end, len(data))
                if low < high:
                    found |= lib.lcp_find_texts(whole + low, high - low, self._pointers, self._sizes, len(self._texts))
        return {text for number, text in enumerate(self._texts) if found >> number & 1} if found else set()


def find_words(data: mmap.mmap | bytes, start: int, end: int, numbers: range) -> list[int]:
    """
    Return where words of 8 bytes are numbers of a range.

    Args:
        data: What to look in, as a whole.
        start: Where to begin in it, a multiple of 8.
        end: Where to end.
        numbers: The range.
    """
    if not numbers:
        return []
    most = 64
    with ffi.from_buffer(data) as whole:
        while True:
            places = ffi.new("uint64_t[]", most)
            there = lib.lcp_find_words(whole + start, end - start, numbers[0], numbers[-1], places, most)
            if there <= most:
                break
            most = there
        words = ffi.cast("uint64_t *", whole)
        found = [start + places[number] for number in range(there)]
        return [place for place in found if words[place // 8] in numbers]
