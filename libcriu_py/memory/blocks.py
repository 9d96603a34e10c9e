"""
Writing files whose pages are mapped, such that the page cache holds them in large folios.

Linux makes folios as large as the write that they are for, up to 2 MB, where the file system can (XFS, btrfs, and ext4
from 6.16 on: mm/filemap.c, fgf_set_order). A fault near them then maps its 16 pages in one step instead of looking each
of them up. What is copied between files by the kernel arrives in the pieces of a pipe and gets folios of 4 to 32 kB.
"""

from __future__ import annotations

import errno
import os

from libcriu_py.memory.memory import PAGE

BLOCK = 2 << 20
"""Bytes that are written at a time, aligned: of the largest folio."""
_HOLE = 64 * PAGE
"""Bytes in a row that are not written, although what is before and after them is: holes stay holes."""


class BlockWriter:
    """Collects what goes into a file, in order of offsets, and writes it in aligned blocks."""

    def __init__(self, fd: int) -> None:
        """
        Begin with nothing.

        Args:
            fd: Of the file, which must stay open; what is not written stays what it is, zeros in a new file.
        """
        self._fd = fd
        self._block = memoryview(bytearray(BLOCK))
        self._base = self._start = self._end = 0

    def copy(self, source: int, source_offset: int, offset: int, size: int) -> None:
        """
        Take bytes from another file.

        Args:
            source: That file.
            source_offset: Where in it.
            offset: Where they go, not before the end of what was taken earlier.
            size: How many.

        Raises:
            OSError: The source ends before that, or the file cannot be written.
        """
        while size:
            if offset >= self._base + BLOCK or offset - (self._base + self._end) > _HOLE:
                self.flush()
                self._base = offset - offset % BLOCK
                self._start = self._end = offset - self._base
            at = offset - self._base
            self._block[self._end : at] = bytes(at - self._end)
            done = os.preadv(source, [self._block[at : at + min(size, BLOCK - at)]], source_offset)
            if not done:
                message = "a pages file ends early"
                raise OSError(errno.EIO, message)
            self._end = at + done
            source_offset += done
            offset += done
            size -= done

    def flush(self) -> None:
        """
        Write what has been collected.

        Raises:
            OSError: The file cannot be written.
        """
        while self._start < self._end:
            self._start += os.pwrite(self._fd, self._block[self._start : self._end], self._base + self._start)
