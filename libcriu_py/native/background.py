"""Work beside the making of a plan: bringing a file to the disk and adding it up."""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING, TypeVar

from libcriu_py.linux import checksum
from libcriu_py.snapshot.record import FileEntry

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def begin(work: Callable[[], T]) -> Callable[[], T]:
    """Call something in a thread of its own; return what waits for it, and returns or raises what it does."""
    done = _thread.allocate_lock()
    done.acquire()
    errors: list[Exception] = []
    results: list[T] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - it is raised by `wait`
            errors.append(error)
        finally:
            done.release()

    def wait() -> T:
        done.acquire()
        if errors:
            raise errors[0]
        return results[0]

    _thread.start_new_thread(run, ())
    return wait


class Settling:
    """Bringing a file to the disk, and adding it up."""

    def __init__(self, fd: int) -> None:
        """Begin; the descriptor must stay open."""
        self._size = os.fstat(fd).st_size
        self._sum = begin(lambda: checksum.sum_file(fd))
        self._written = begin(lambda: os.fsync(fd))

    def result(self) -> FileEntry:
        """
        Wait for both.

        Returns:
            The file's size and sum.

        Raises:
            OSError: One of them failed.
        """
        self._written()
        return FileEntry(self._size, self._sum())
