"""The standard streams of a restored process, given as `subprocess.Popen` takes them."""

from __future__ import annotations

import fcntl
import os
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libcriu_py.settings import Stream

PIPE = -1
STDOUT = -2
DEVNULL = -3
"""As in `subprocess`, which is not imported for them."""


class Streams:
    """The three descriptors for a restored process, and our ends of its pipes."""

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        """Open what is asked for, as `subprocess.Popen` understands it."""
        self.given: list[int] = []
        """Descriptors above 2, which is what criu wants of those it inherits."""
        self.ours: list[int | None] = [None, None, None]
        self.closed: list[int] = []
        try:
            for number, wanted in enumerate((stdin, stdout, stderr)):
                self.given.append(self._open(number, wanted))
        except BaseException:
            self.close()
            raise

    def _open(self, number: int, wanted: Stream) -> int:
        if wanted == PIPE:
            reading, writing = os.pipe()
            ours, theirs = (writing, reading) if number == 0 else (reading, writing)
            self.ours[number] = ours
            return theirs
        if wanted == STDOUT and number == 2:
            return _high(self.given[1])
        if wanted == DEVNULL:
            return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if wanted is None:
            return self._inherited(number)
        return _high(wanted if isinstance(wanted, int) else wanted.fileno())

    def _inherited(self, number: int) -> int:
        if not is_closed(number):
            return _high(number)
        self.closed.append(number)
        return os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)

    def files(self, encoding: str | None, errors: str | None) -> list[IO[Any] | None]:
        """Make file objects of our ends of the pipes."""
        files: list[IO[Any] | None] = []
        for number, fd in enumerate(self.ours):
            if fd is None:
                files.append(None)
                continue
            mode = "w" if number == 0 else "r"
            if encoding is None:
                files.append(os.fdopen(fd, mode + "b"))
            else:
                files.append(os.fdopen(fd, mode, encoding=encoding, errors=errors))
        self.ours = [None, None, None]
        return files

    def close_given(self) -> None:
        """Close what the restored process has now."""
        while self.given:
            os.close(self.given.pop())

    def close(self) -> None:
        """Close everything."""
        self.close_given()
        for fd in self.ours:
            if fd is not None:
                os.close(fd)
        self.ours = [None, None, None]


def is_closed(fd: int) -> bool:
    """Return whether a descriptor is closed, or only held by a placeholder (O_PATH) of the launcher."""
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH)
    except OSError:
        return True


def _high(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
