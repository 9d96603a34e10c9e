"""
The pages that programs of a snapshot use at their start, learned from the first copies that a pool hands out.

The first access to a page is a fault, which takes some microseconds if the page is mapped from a file and written to. A
program has one or two thousand before its first output. A waiting copy has time to prefetch these pages
(csrc/copy/pages.c), which does not change their contents.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from libcriu_py.linux import pages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.copies.standby.copy import WaitingCopy

_MOMENTS = (0.002, 0.004, 0.008, 0.016, 0.032)
"""When to list the pages of a copy, in seconds after a launcher took it, unless it ends before."""
_PROGRAMS = 4
"""How many programs to watch; the first may only print its help."""
_LIMIT = 64 << 20
"""Bytes that a program may have written for its pages to count; more belongs to its work, and not to its start."""


class _Watched:
    """A program that has just begun."""

    def __init__(self, copy: WaitingCopy) -> None:
        self.pages: int | None = None
        self._pid = copy.pid
        self._pidfd = os.dup(copy.descriptors[2])
        self._begun = time.monotonic()
        self._moments = list(_MOMENTS)

    def seconds_left(self) -> float:
        """Return the seconds until the next check."""
        return self._begun + self._moments[0] - time.monotonic()

    def check(self) -> bool:
        """List its pages; return False after the last time."""
        self._moments.pop(0)
        memory = os.memfd_create("libcriu_py-pages", os.MFD_CLOEXEC)
        if not pages.list_pages(self._pid, _LIMIT, memory) or self._has_ended():
            os.close(memory)
            return False
        self._forget_pages()
        self.pages = memory
        return bool(self._moments)

    def _has_ended(self) -> bool:
        """Return whether it has ended, so that another process may have its pid."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def _forget_pages(self) -> None:
        if self.pages is not None:
            os.close(self.pages)
            self.pages = None

    def close(self) -> None:
        """Stop watching it."""
        self._forget_pages()
        os.close(self._pidfd)


class Pages:
    """
    The pages learned for one snapshot.

    Thread safety: none.
    """

    def __init__(self) -> None:
        """Start with no pages."""
        self.files: list[int] = []
        """Descriptors of page lists, one for each watched program."""
        self._watched: list[_Watched] = []

    def watch(self, copy: WaitingCopy) -> None:
        """Watch a copy that a launcher takes, unless enough programs were watched."""
        if len(self.files) + len(self._watched) < _PROGRAMS:
            self._watched.append(_Watched(copy))

    def seconds_left(self) -> float | None:
        """Return the seconds until the next check is due; None if none is."""
        return min((watched.seconds_left() for watched in self._watched), default=None)

    def check(self) -> Sequence[int]:
        """Check the programs that are due; return the new page lists."""
        found = []
        for watched in [watched for watched in self._watched if watched.seconds_left() <= 0]:
            if watched.check():
                continue
            self._watched.remove(watched)
            if watched.pages is not None:
                found.append(os.dup(watched.pages))
            watched.close()
        self.files += found
        return found

    def close(self) -> None:
        """Close all descriptors and forget the pages."""
        for watched in self._watched:
            watched.close()
        for file in self.files:
            os.close(file)
        self._watched, self.files = [], []
