"""Show on a terminal what a command is doing, where that takes longer than a second."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

BEGINS_AFTER = 1.0
"""Seconds that something may take without a word."""
_AGAIN_AFTER = 0.5


class Progress:
    """
    A line on stderr that is renewed while the block runs, and goes when it ends; none where stderr is no terminal.

    A forked child writes it: this process may wait in C, or be dumped next, and a thread would be in the way.
    """

    def __init__(self, text: str | Callable[[], str]) -> None:
        """
        Begin nothing yet.

        Args:
            text: What is being done, such as "reading snap"; a function is called in the child at each renewal, and an
                empty string leaves what is shown.
        """
        self._text = text
        self._pid = 0

    def __enter__(self) -> Self:
        """Begin to show it, after a second."""
        if not sys.stderr.isatty():
            return self
        import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

        sys.stderr.flush()
        parent = os.getpid()
        end, self._end = os.pipe()
        before = _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGINT])  # Ctrl-C is the parent's affair
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._show(end, parent)
            finally:
                os._exit(0)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        os.close(end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Have the line erased."""
        if not self._pid:
            return
        try:
            os.write(self._end, b".")
            os.waitpid(self._pid, 0)
        except OSError:
            pass  # it has been killed, or waited for
        os.close(self._end)

    def _show(self, end: int, parent: int) -> None:
        """Renew the line until the block ends, or the process that has it."""
        import select

        text, begun, shown = "", None, False
        while not select.select([end], [], [], _AGAIN_AFTER)[0] and os.getppid() == parent:
            try:
                text = (self._text if isinstance(self._text, str) else self._text()) or text
            except OSError:
                continue  # something has gone while it was looked at
            begun = begun or (time.monotonic() if text else None)
            seconds = time.monotonic() - begun if begun else 0
            if seconds >= BEGINS_AFTER:
                # The cursor stays at the beginning, so that a message of somebody else takes the line's place.
                os.write(2, f"\rlibcriu-py: {text} ({seconds:.0f} s)\x1b[K\r".encode())
                shown = True
        if shown:
            os.write(2, b"\r\x1b[K")
