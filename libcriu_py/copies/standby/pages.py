"""
The pages of memory that programs of a snapshot use at their start, learned from the first that a pool serves.

The first touch of each page is a fault, of some microseconds for one that is mapped from a file and written to; there
are one or two thousand until the first output of a program. A copy that waits has the time to fetch these pages
(csrc/copy/pages.c), which changes nothing of what is in them.
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
"""Seconds after a copy was given away at which its pages are looked at: until the last, or its end."""
_PROGRAMS = 4
"""How many programs are watched: the first may be one that prints its help."""
_LIMIT = 64 << 20
"""Bytes that a program may have written for its pages to count; more is its work, and not its start."""


class _Watched:
    """A program that has just begun."""

    def __init__(self, copy: WaitingCopy) -> None:
        self.pages: int | None = None
        self._pid = copy.pid
        self._pidfd = os.dup(copy.descriptors[2])
        self._begun = time.monotonic()
        self._moments = list(_MOMENTS)

    def seconds_left(self) -> float:
        """Return the seconds until the next look."""
        return self._begun + self._moments[0] - time.monotonic()

    def check(self) -> bool:
        """Look at its pages; False when this was the last time."""
        self._moments.pop(0)
        memory = os.memfd_create("libcriu_py-pages", os.MFD_CLOEXEC)
        if not pages.list_pages(self._pid, _LIMIT, memory) or self._has_ended():
            os.close(memory)
            return False
        self._forget_pages()
        self.pages = memory
        return bool(self._moments)

    def _has_ended(self) -> bool:
        """Return whether it has; its pid may be another's then."""
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return bool(poller.poll(0))

    def _forget_pages(self) -> None:
        if self.pages is not None:
            os.close(self.pages)
            self.pages = None

    def close(self) -> None:
        """Watch it no longer."""
        self._forget_pages()
        os.close(self._pidfd)


class Pages:
    """
    What has been learned of one snapshot.

    Thread safety: none.
    """

    def __init__(self) -> None:
        """Begin to learn."""
        self.files: list[int] = []
        """Files of pages, one for each program that was watched."""
        self._watched: list[_Watched] = []

    def watch(self, copy: WaitingCopy) -> None:
        """Learn from a copy that is being given away, unless enough is known."""
        if len(self.files) + len(self._watched) < _PROGRAMS:
            self._watched.append(_Watched(copy))

    def seconds_left(self) -> float | None:
        """Return the seconds until there is something to look at."""
        return min((watched.seconds_left() for watched in self._watched), default=None)

    def check(self) -> Sequence[int]:
        """
        Look at what it is time for.

        Returns:
            The new files of pages.
        """
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
        """Forget everything."""
        for watched in self._watched:
            watched.close()
        for file in self.files:
            os.close(file)
        self._watched, self.files = [], []
