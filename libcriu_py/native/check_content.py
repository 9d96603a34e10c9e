"""Compare the memory of the process that stands still with `memory.img`, by several threads: most of a check's time."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.comparison import count_alike
from libcriu_py.native.background import begin

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

_PART = 2 << 20
"""Bytes that are compared at once."""
_THREADS = 4
"""At most."""


class Alike(NamedTuple):
    """A range of memory, and where in the file the same content must be."""

    start: int
    end: int
    offset: int


def first_difference(memory: int, file: mmap.mmap | bytes, ranges: Sequence[Alike]) -> int | None:
    """
    Return the lowest address whose content is another than in the file; None if all is alike.

    Args:
        memory: /proc/PID/mem, open for reading.
        file: The file.
        ranges: What to compare.

    Raises:
        OSError: Memory cannot be read.
    """
    parts = [
        Alike(at, min(at + _PART, end), offset + at - start)
        for start, end, offset in ranges
        for at in range(start, end, _PART)
    ]
    different: list[int] = []

    def compare(number: int, step: int) -> None:
        for start, end, offset in parts[number::step]:
            alike = count_alike(memory, start, file, offset, end - start)
            if alike < end - start:
                different.append(start + alike)
                return

    threads = min(len(os.sched_getaffinity(0)), _THREADS)
    waits = [begin(partial(compare, number, threads)) for number in range(threads)]
    for wait in waits:
        wait()
    return min(different, default=None)
