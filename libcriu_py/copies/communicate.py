"""Feeding and reading the pipes of a restored process; apart, since a launcher needs none of it."""

from __future__ import annotations

import io
import os
import selectors
import time
from subprocess import TimeoutExpired
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from libcriu_py.copies.process import RestoredProcess

_BLOCK = 65536


class Exchange:
    """The state of one `communicate`, which outlives a timeout."""

    def __init__(self, process: RestoredProcess, data: bytes) -> None:
        """Begin to write `data`, and to read the pipes of a process."""
        self.process = process
        self.selector = selectors.DefaultSelector()
        self.left = memoryview(data)
        self.stdin = process.stdin
        self.read: dict[int, list[bytes]] = {}
        if process.stdin is not None:
            process.stdin.flush()
            if data:
                os.set_blocking(process.stdin.fileno(), False)
                self.selector.register(process.stdin.fileno(), selectors.EVENT_WRITE)
            else:
                process.stdin.close()
        for stream in (process.stdout, process.stderr):
            if stream is not None and not stream.closed:
                self.selector.register(stream.fileno(), selectors.EVENT_READ)
                self.read[stream.fileno()] = []

    def run(self, deadline: float | None, timeout: float | None) -> tuple[Any, Any]:
        """
        Go on until the pipes are at their ends.

        Raises:
            subprocess.TimeoutExpired: The deadline has come.
        """
        while self.selector.get_map():
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutExpired(self.process.args, timeout or 0.0)
            self._step(left)
        self.selector.close()
        return self._result(self.process.stdout), self._result(self.process.stderr)

    def _step(self, timeout: float | None) -> None:
        for key, events in self.selector.select(timeout):
            if events & selectors.EVENT_WRITE:
                self._write(key.fd)
            else:
                self._read(key.fd)

    def _write(self, fd: int) -> None:
        try:
            self.left = self.left[os.write(fd, self.left[:_BLOCK]) :]
        except BrokenPipeError:
            self.left = self.left[:0]
        if not self.left and self.stdin is not None:
            self.selector.unregister(fd)
            self.stdin.close()

    def _read(self, fd: int) -> None:
        data = os.read(fd, _BLOCK)
        self.read[fd].append(data)
        if not data:
            self.selector.unregister(fd)

    def _result(self, stream: IO[Any] | None) -> Any:
        if stream is None or stream.closed:
            return None
        data = b"".join(self.read[stream.fileno()])
        stream.close()
        if isinstance(stream, io.TextIOWrapper):
            return io.TextIOWrapper(io.BytesIO(data), stream.encoding, stream.errors).read()
        return data


def encoded(stream: IO[Any] | None, data: Any) -> bytes:
    """Return the bytes to write for bytes or text; ValueError where there is no pipe to write to."""
    if data is None:
        return b""
    if stream is None:
        message = "there is nothing to write to: the process was restored without stdin=PIPE"
        raise ValueError(message)
    if isinstance(stream, io.TextIOWrapper):
        return str(data).encode(stream.encoding, stream.errors or "strict")
    return bytes(data)
