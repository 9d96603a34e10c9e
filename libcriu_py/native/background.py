"""Work beside the making of a plan: bringing a file to the disk and adding it up."""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING

from libcriu_py.linux import checksum
from libcriu_py.snapshot.record import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable


def begin(work: Callable[[], None]) -> Callable[[], None]:
    """Do something in a thread of its own; return what waits for its end, and raises what it has raised."""
    done = _thread.allocate_lock()
    done.acquire()
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - it is raised by `wait`
            errors.append(error)
        finally:
            done.release()

    def wait() -> None:
        done.acquire()
        if errors:
            raise errors[0]

    _thread.start_new_thread(run, ())
    return wait


class Settling:
    """Bringing a file to the disk, and adding it up."""

    def __init__(self, fd: int) -> None:
        """Begin; the descriptor must stay open."""
        self._size = os.fstat(fd).st_size
        self._sum = 0
        self._waits = [begin(lambda: self._add(fd)), begin(lambda: os.fsync(fd))]

    def result(self) -> FileEntry:
        """
        Wait for both.

        Returns:
            The file's size and sum.

        Raises:
            OSError: One of them failed.
        """
        for wait in self._waits:
            wait()
        return FileEntry(self._size, self._sum)

    def _add(self, fd: int) -> None:
        self._sum = checksum.sum_file(fd)
