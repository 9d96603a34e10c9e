"""A restored process, as its caller sees it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from typing import IO, TYPE_CHECKING, Any

from libcriu_py.copies import order as orders
from libcriu_py.errors import RestoreError
from libcriu_py.linux import supervision
from libcriu_py.snapshot.request import ERROR, READY, STARTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from libcriu_py.copies.order import Order

    Popen = subprocess.Popen[Any]
    Stream = int | IO[Any] | None
else:
    Popen = subprocess.Popen


_outliving: list[tuple[int, int]] = []
"""Launchers that still run though nobody waits for them, and their status sockets; -1 for a closed one."""


def reap_later(launcher: int, status: int = -1) -> None:
    """Reap a launcher that still runs, and close its socket, when the next process is restored."""
    _outliving.append((launcher, status))


def _reap_outliving() -> None:
    for _ in range(len(_outliving)):
        try:
            launcher, status = _outliving.pop(0)
        except IndexError:
            return  # another thread was faster
        if not supervision.reap(launcher, wait=False):
            _outliving.append((launcher, status))
        elif status >= 0:
            os.close(status)


class RestoredProcess(Popen):
    """
    A process restored from a snapshot; it behaves like any `subprocess.Popen`.

    `pid` is that of the restored process. It is not our child: the launcher is, and reports the process's end.

    Thread safety: any thread may call methods, but only one may wait at a time.
    """

    def __init__(
        self,
        order: Order,
        argv: Sequence[str],
        *,
        streams: Sequence[Stream],
        encoding: str | None = None,
        errors: str | None = None,
    ) -> None:
        """Start a launcher, and wait for its restore; call `restore` instead of this."""
        _reap_outliving()
        self.channel = order.status
        """The status socket; -1 once the process has ended."""
        self.pidfd = -1
        """A pidfd of the process; -1 once the process has ended."""
        self._launcher = 0
        self._messages = b""
        stdin, stdout, stderr = streams
        try:
            with order:
                super().__init__(
                    order.command,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=order.descriptors,
                    encoding=encoding,
                    errors=None if encoding is None else errors,
                )
            self._launcher = self.pid
            restored = order.await_restored()
        except BaseException:
            self._abort()
            raise
        (self.pidfd,) = restored.fds
        self.pid = restored.value
        self.from_pool = bool(restored.error)
        """Whether it waited in a standby pool, and so is in another session than this process."""
        self.args = [*map(os.fsdecode, restored.text.split(b"\0")[:-1]), *argv]

    def _abort(self) -> None:
        if self._launcher:
            with contextlib.suppress(ProcessLookupError):  # if SIGCHLD is ignored, the kernel may have reaped it
                os.kill(self._launcher, signal.SIGKILL)  # a restore that it has begun ends with it
            for pipe in (self.stdin, self.stdout, self.stderr):
                if pipe is not None:
                    pipe.close()
        self._end(-signal.SIGKILL)

    def __repr__(self) -> str:
        """Return pid and state."""
        state = "running" if self.returncode is None else f"returncode {self.returncode}"
        return f"<RestoredProcess pid {self.pid}, {state}>"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the pipes and wait for the process."""
        with contextlib.suppress(BrokenPipeError):  # nobody reads the rest any more
            super().__exit__(kind, value, traceback)

    def __del__(self, reap_later: Any = reap_later) -> None:
        """Leave the process running."""
        if self.returncode is None and self.pidfd >= 0:
            os.close(self.pidfd)
            reap_later(self._launcher, self.channel)

    # ---- status messages ---------------------------------------------------

    def _receive(self, timeout: float | None) -> bool:
        """Receive one message; return False if none comes in time, or the process has ended."""
        if self.returncode is not None:
            return False
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        if not poller.poll(None if timeout is None else timeout * 1000):
            return False
        status = orders.receive(self.channel)
        if status is None:
            self._end_orphan()
        elif status.kind == orders.TOLD:
            self._messages += status.text
        elif status.kind == orders.ENDED:
            self._end(os.waitstatus_to_exitcode(status.value), lingering=bool(status.stage))
        return True

    def _end_orphan(self) -> None:
        """Kill a process whose launcher was killed, and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        poller.poll()
        self._end(-signal.SIGKILL)

    def _end(self, returncode: int, *, lingering: bool = False) -> None:
        self.returncode = returncode
        for fd in (self.channel, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.channel = self.pidfd = -1
        if lingering:
            reap_later(self._launcher)  # it stays for processes that the program left running
        elif self._launcher:
            supervision.reap(self._launcher, wait=True)

    def poll(self) -> int | None:
        """Return the exit status if the process has ended (negative: killed by that signal), else None."""
        while self._receive(0):
            pass
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the process to end.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Its exit status, or minus the number of the signal that killed it.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if not self._receive(_seconds_until(deadline)) and timeout is not None and self.poll() is None:
                raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _internal_poll(self, *_: object, **__: object) -> int | None:
        return self.poll()

    def _wait(self, timeout: float | None) -> int:
        return self.wait(timeout)

    # ---- signals and pipes -------------------------------------------------

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                signal.pidfd_send_signal(self.pidfd, sig)

    def communicate(self, data: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """
        Write to stdin, read stdout and stderr to the end, and wait for the process to end.

        Args:
            data: What to write, bytes or text as the pipes are; needs `stdin=PIPE`.
            timeout: Seconds; None waits for ever.

        Returns:
            What was read from stdout and stderr; None for one that is not a pipe.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time; another call continues without loss.
            ValueError: There is data to write, but stdin is not a pipe.
        """
        if data is not None and self.stdin is None:
            message = "data cannot be written: the process was restored without stdin=PIPE"
            raise ValueError(message)
        return super().communicate(data, timeout)

    # ---- the hand-over -----------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether code of the program has begun to run in the restored process."""
        self.poll()
        return self._messages.startswith(STARTED)

    @property
    def handover_error(self) -> str | None:
        """What failed in the restored process before code of the program ran; None if nothing did."""
        self.poll()
        return self._messages[1:].decode("utf-8", "replace") if self._messages.startswith(ERROR) else None

    def wait_ready(self, timeout: float | None = None) -> None:
        """
        Wait until the after-hooks have run in the restored process.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            RestoreError: The process ended before that.
            TimeoutError: They have not run in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._messages.startswith(STARTED + READY):
            if self.returncode is not None:
                reason = self.handover_error or f"it ended with status {self.returncode}"
                message = f"the restored process (pid {self.pid}) did not become ready: {reason}"
                raise RestoreError(message)
            if not self._receive(_seconds_until(deadline)):
                message = f"the restored process (pid {self.pid}) was not ready within {timeout} seconds"
                raise TimeoutError(message)

    def release(self) -> None:
        """Send the request to a process that was ordered with HOLD."""
        os.write(self.channel, b"G")


def _seconds_until(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())
