"""
`logging`: log files are closed for the dump and opened again after it.

criu refuses to restore a process whose open file has another size than at the dump (criu/files-reg.c,
validate_file), and logs grow. A file is opened again for appending, whatever its mode was; it may have been rotated.
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

    def let_go(self) -> None:
        """Flush and close, and keep the handlers locked, so that no other thread opens a file again."""
        handlers: list[Any] = list(live(logging.FileHandler))
        for handler in handlers:
            handler.acquire()
            if getattr(handler, "stream", None) is None:
                handler.release()
                continue
            handler.flush()
            handler.stream.close()
            self._closed.append(handler)

    def put_right(self, arrival: Arrival) -> None:
        """Open them, and let `relativeCreated` of records not count the downtime."""
        module: Any = logging
        in_nanoseconds = isinstance(module._startTime, int)  # noqa: SLF001 - since Python 3.13
        away = round(arrival.downtime * 1e9) if in_nanoseconds else arrival.downtime
        module._startTime = min(  # noqa: SLF001
            module._startTime + away,  # noqa: SLF001
            time.time_ns() if in_nanoseconds else time.time(),
        )
        self.come_back()

    def come_back(self) -> None:
        """Open them; where that fails a handler tries again with its next record."""
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
