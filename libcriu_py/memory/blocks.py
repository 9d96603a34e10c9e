"""
Writing files in large blocks, so that the page cache holds them in large folios.

Linux makes folios as large as the write that fills them, up to 2 MB, if the file system supports that (XFS, btrfs, and
ext4 since 6.16: mm/filemap.c, fgf_set_order). A fault then maps its 16 surrounding pages in one step instead of looking
each up. Data that the kernel copies between files goes through a pipe and gets folios of 4 to 32 kB.
"""

from __future__ import annotations

import errno
import os

from libcriu_py.memory.memory import PAGE

BLOCK = 2 << 20
"""Bytes of an aligned write: the size of the largest folio."""
_HOLE = 64 * PAGE
"""Bytes of a gap in the data that stays a hole; shorter gaps are filled with zeros."""


class BlockWriter:
    """Collects data for a file, by ascending offset, and writes it in aligned blocks."""

    def __init__(self, fd: int) -> None:
        """
        Start without data.

        Args:
            fd: A descriptor of the file, which must stay open. Gaps keep their content: zeros in a new file.
        """
        self._fd = fd
        self._block = memoryview(bytearray(BLOCK))
        self._base = self._start = self._end = 0

    def copy(self, source: int, source_offset: int, offset: int, size: int) -> None:
        """
        Copy data from another file.

        Args:
            source: A descriptor of the other file.
            source_offset: The offset there, in bytes.
            offset: The offset here, not before the end of earlier data.
            size: How much, in bytes.

        Raises:
            OSError: The source is too short, or the file cannot be written.
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
        Write the collected data.

        Raises:
            OSError: The file cannot be written.
        """
        while self._start < self._end:
            self._start += os.pwrite(self._fd, self._block[self._start : self._end], self._base + self._start)
