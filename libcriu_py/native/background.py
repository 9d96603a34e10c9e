"""Bringing a file to the disk and adding it up, both while the plan is made and compared."""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING

from libcriu_py.linux import checksum
from libcriu_py.snapshot.record import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable


class Background:
    """The work on one file."""

    def __init__(self, fd: int) -> None:
        """Begin; the descriptor must stay open."""
        self._size = os.fstat(fd).st_size
        self._sum = 0
        self._errors: list[Exception] = []
        self._locks = [self._start(lambda: self._add(fd)), self._start(lambda: os.fsync(fd))]

    def result(self) -> FileEntry:
        """
        Wait for both.

        Returns:
            The file's size and sum.

        Raises:
            OSError: One of them failed.
        """
        for lock in self._locks:
            lock.acquire()
        if self._errors:
            raise self._errors[0]
        return FileEntry(self._size, self._sum)

    def _add(self, fd: int) -> None:
        self._sum = checksum.sum_file(fd)

    def _start(self, work: Callable[[], None]) -> _thread.LockType:
        done = _thread.allocate_lock()
        done.acquire()

        def run() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 - it is raised by `result`
                self._errors.append(error)
            finally:
                done.release()

        _thread.start_new_thread(run, ())
        return done
