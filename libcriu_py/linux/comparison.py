"""Comparing the memory of another process with a mapped file (csrc/native/compare.h)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.linux.ffi import checked, ffi, lib

if TYPE_CHECKING:
    import mmap


def count_alike(memory: int, at: int, file: mmap.mmap | bytes, offset: int, size: int) -> int:
    """
    Return how many bytes of memory are as in a file, until the first that is not or the end of the file.

    Args:
        memory: /proc/PID/mem, open for reading.
        at: The address.
        file: The file.
        offset: Where in the file to begin.
        size: How many bytes to compare.

    Raises:
        OSError: Memory cannot be read.
    """
    size = min(size, len(file) - offset)
    if size <= 0:
        return 0
    with ffi.from_buffer(file) as whole:
        return checked(lib.lcp_count_alike(memory, at, whole + offset, size))
