"""
The first steps of a native copy, which nobody supervises: where they fail, it starts its program itself.

The launcher has become this process, and has left two messages: the request, and whether and how a conventional start
may follow, with the descriptors that it was started with under numbers that the program uses itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
from typing import TYPE_CHECKING, Any, NoReturn

from libcriu_py.dump.arrival import FAILED, Handover
from libcriu_py.linux import native, this_process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.snapshot.request import Request

_NO_FALLBACK, _QUIET = 1, 2
_MOST_KEPT = 253
"""MAX_FDS in csrc/common/descriptors.h."""
_SLOT, _HIGH_SLOT = 48, 800
"""
The least number of the request's slot: not one that copies are likely to inherit, such as 3 or /dev/fd/63. That of an
interpreter is none that a pool of many workers has.
"""


class NativeHandover(Handover):
    """The copy's side of the hand-over where the launcher has become the copy."""

    def __init__(self, command: Sequence[str], without: Sequence[int], *, high: bool = False) -> None:
        """
        Prepare the hand-over, right before the dump.

        Args:
            command: The conventional command line up to the program's arguments.
            without: Open descriptors that copies do not have.
            high: Whether copies may inherit any number of descriptors.
        """
        self._shown = b"".join([os.fsencode(word) + b"\0" for word in command])
        self._own = [fd for fd in map(int, os.listdir("/proc/self/fd")) if fd > 2 and fd not in without]
        self._command = [*command]
        slot = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        least = _HIGH_SLOT if high and resource.getrlimit(resource.RLIMIT_NOFILE)[0] > _HIGH_SLOT else _SLOT
        self.slot = fcntl.fcntl(slot, fcntl.F_DUPFD_CLOEXEC, least)
        os.close(slot)
        super().__init__(self.slot, command)

    def await_release(self) -> None:
        """Return at once: nothing holds the threads of this copy."""

    def _plan(self) -> dict[str, Any]:
        return {"show": native.show_arguments(), "shown": self._shown, "shown_size": len(self._shown)}

    def _tasks(self) -> list[int]:
        return []  # their ids are those of other processes in copies

    def _show_arguments(self, request: Request) -> None:
        shown = os.fsencode(request.executable) + b"\0" if request.executable else self._shown
        native.set_arguments(shown + b"\0".join([*request.argv, b""]))

    def _schedule(self, request: Request) -> None:
        """Apply that of a caller who takes an idle copy; one that has become the copy has handed over its own."""
        if request.pgid is not None and this_process.schedule() != request.schedule:
            for task in os.listdir("/proc/self/task"):
                this_process.set_schedule(int(task), request.schedule)

    def _give_up(self, error: Exception, request: Request | None) -> NoReturn:
        from libcriu_py.snapshot import notices

        how = self._how()
        if how is None:
            super()._give_up(error, request)
        told, kept = how
        why = f"the restored process could not take over: {str(error) or repr(error)}"
        if request is None or told & _NO_FALLBACK:
            notices.say(why)
            os._exit(FAILED)
        if not told & _QUIET:
            notices.say(f"starting conventionally: {why}")
        self._start_conventionally(request, kept)

    def _how(self) -> tuple[int, dict[int, int]] | None:
        """Return how the launcher wants a conventional start, and what it has kept; None if another does that."""
        import socket

        if self._socket is None:
            return None
        try:
            sock = socket.socket(fileno=os.dup(self._socket))
            sock.setblocking(False)  # recv_fds() ignores its flags
            message, fds, _, _ = socket.recv_fds(sock, 2 + 4 * _MOST_KEPT, _MOST_KEPT)
        except OSError:
            return None
        if len(message) < 2 or message[:1] != b"N":
            return None
        return message[1], dict(zip(memoryview(message[2:]).cast("i"), fds, strict=True))

    def _start_conventionally(self, request: Request, kept: Mapping[int, int]) -> NoReturn:
        import signal

        from libcriu_py.snapshot import notices

        for fd in self._own:
            try:
                os.set_inheritable(fd, False)
            except OSError:
                continue
        for number, fd in kept.items():
            os.dup2(fd, number)
            os.close(fd)
        for which in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(which, 0)
        for number in signal.valid_signals():
            if signal.getsignal(number) is signal.SIG_IGN and number not in request.ignored:
                with contextlib.suppress(ValueError):  # in another thread than the main one
                    signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, request.blocked)
        env = {**request.env, b"LIBCRIU_PY_CONVENTIONAL": b"%d" % os.getpid()}
        words = [*map(os.fsencode, self._command), *request.argv]
        try:
            os.execve(words[0], words, env)
        except OSError as error:
            notices.say(f"{self._command[0]} cannot be started either: {error.strerror}")
        os._exit(FAILED)
