"""
The publisher of a native dump (native/publish.py), as the process has it that dumps itself.

It begins when the block is left, so that an interpreter need not start while the process stands still. Copies have none
of the descriptors that are opened here.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from libcriu_py.linux import native

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.linux.native import Dumped

_LARGEST_RESULT = 4096


class Publisher:
    """
    A running publisher.

    Thread safety: to be used by the thread that starts it, with whose end it ends.
    """

    def __init__(self, command: Sequence[str], directory: str) -> None:
        """
        Start it.

        Args:
            command: Its command.
            directory: The directory to fill.

        Raises:
            OSError: It cannot be started.
        """
        self.descriptors: list[int] = []
        """What is open for it."""
        try:
            files = self._open(directory)
            self._native = native.start(files, command)
        except BaseException:
            self._close()
            raise
        self._order, self._result, self._stages = files.order, files.result, files.stages
        self.pids = native.publisher_of(self._native)
        """Its own and its parent's."""

    def order(self, order: bytes) -> None:
        """Say what is to be done."""
        os.pwrite(self._order, order, 0)
        os.write(self._stages[1], bytes(4))

    def dump(self, memory: str | None, slot: int, *, then_exit: bool) -> Dumped:
        """
        Dump this process, and have it published.

        Args:
            memory: The path of the file for its memory; None where there is to be no snapshot, only the answer.
            slot: The descriptor that a copy reads its request from.
            then_exit: Whether this process ends, with status 0, once the snapshot is published.

        Returns:
            In a copy, and in the original where it goes on.
        """
        flags = os.O_WRONLY if memory is None else os.O_RDWR | os.O_CREAT | os.O_EXCL
        fd = os.open(memory or os.devnull, flags | os.O_CLOEXEC, 0o600)
        self.descriptors = [one for one in [*self.descriptors, fd] if one not in self._stages]
        return native.dump(self._native, fd, slot, then_exit=then_exit, is_trial=memory is None)

    def sentence(self) -> str:
        """Return why it has refused; empty if it has not said so."""
        return os.pread(self._result, _LARGEST_RESULT, 0).decode("utf-8", "replace").strip()

    def end(self) -> None:
        """End it if it runs still, and close what was opened; not in a copy."""
        native.stop(self._native)
        self._close()

    def _open(self, directory: str) -> native.Files:
        for name in ("order", "facts", "result"):
            self.descriptors.append(os.memfd_create(f"libcriu_py-{name}", os.MFD_CLOEXEC))
        self.descriptors.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        self.descriptors += (stages := os.pipe2(os.O_CLOEXEC))
        order, facts, result, staging, *_ = self.descriptors
        return native.Files(order, facts, result, staging, stages)

    def _close(self) -> None:
        opened, self.descriptors = self.descriptors, []
        for fd in opened:
            with contextlib.suppress(OSError):
                os.close(fd)
