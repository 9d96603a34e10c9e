"""
`logging`: close log files for the dump, and reopen them after it.

criu refuses to restore a process with an open file whose size has changed (criu/files-reg.c, validate_file), and logs
grow. Files are reopened for appending, whatever their mode was: they may have been rotated.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from libcriu_py.program.objects import live
from libcriu_py.resources.base import Arrival, BuiltIn


class LogFiles(BuiltIn):
    """The streams of all file handlers."""

    def __init__(self) -> None:
        self._closed: list[Any] = []

    def before_dump(self) -> None:
        """Flush and close the files, and hold the handlers' locks so that no other thread reopens one."""
        handlers: list[Any] = list(live(logging.FileHandler))
        for handler in handlers:
            handler.acquire()
            if getattr(handler, "stream", None) is None:
                handler.release()
                continue
            handler.flush()
            handler.stream.close()
            self._closed.append(handler)

    def in_copy(self, arrival: Arrival) -> None:
        """Reopen them, and leave the downtime out of `relativeCreated` of records."""
        module: Any = logging
        in_nanoseconds = isinstance(module._startTime, int)  # noqa: SLF001 - since Python 3.13
        away = round(arrival.downtime * 1e9) if in_nanoseconds else arrival.downtime
        module._startTime = min(  # noqa: SLF001
            module._startTime + away,  # noqa: SLF001
            time.time_ns() if in_nanoseconds else time.time(),
        )
        self.in_original()

    def in_original(self) -> None:
        """Reopen the files; a handler for which that fails tries again with its next record."""
        first: OSError | None = None
        for handler in self._closed:
            mode, handler.mode = handler.mode, "a"
            handler.stream = None
            try:
                handler.stream = handler._open()  # noqa: SLF001
            except OSError as error:
                first = first or error
            finally:
                handler.mode = mode if handler.stream is not None else "a"
                handler.release()
        self._closed = []
        if first is not None:
            raise first
