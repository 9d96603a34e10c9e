"""A restored program, seen from the process that restored it."""

from __future__ import annotations

import os
import signal
import time
from typing import IO, TYPE_CHECKING, Any

from libcriu_py.errors import RestoreError
from libcriu_py.linux import support
from libcriu_py.snapshot.request import ERROR, READY, STARTED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self


_lingering: list[int] = []
"""Supervisors that outlive their program for the sake of what that left running."""


def linger(supervisor: int) -> None:
    """Reap a supervisor that has not ended yet when the next process is restored."""
    _lingering.append(supervisor)


class RestoredProcess:
    """
    A process restored from a snapshot; it behaves like `subprocess.Popen`.

    `wait`, `poll`, `communicate` and the signals work as there, and so does the context manager:
    leaving it closes the pipes and waits. The process itself is no child of ours but its supervisor is, which
    reports its end: that is the pid which `os.wait` would see.

    Thread safety: methods may be called from any thread, but only one may wait at a time.
    """

    def __init__(
        self,
        *,
        args: Sequence[str],
        channel: int,
        control: int,
        pidfd: int,
        pid: int,
        supervisor: int | None,
        pipes: Sequence[IO[Any] | None] = (None, None, None),
    ) -> None:
        """Take over the descriptors of a restore; `restore` is the way to make one."""
        _lingering[:] = [other for other in _lingering if not support.reap(other, wait=False)]
        self.args = list(args)
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self.pidfd = pidfd
        """A pidfd of the process; closed when its end is known."""
        self.channel = channel
        """The socket on which news of the process arrives; closed when its end is known."""
        self._control = control
        self._supervisor = supervisor
        self._told = b""
        self._exchange: Any = None
        self.pid = pid

    def __repr__(self) -> str:
        """Return pid and state."""
        state = "running" if self.returncode is None else f"returncode {self.returncode}"
        return f"<RestoredProcess pid {self.pid}, {state}>"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pipes and wait for the process."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was still to be written has no reader any more
        self.wait()

    @property
    def control(self) -> int:
        """The socket on which it tells that its own code has begun to run."""
        return self._control

    @property
    def from_pool(self) -> bool:
        """Whether it waited in a standby pool; its session is then not this process's."""
        return self._supervisor is None

    # ---- its end -----------------------------------------------------------

    def poll(self) -> int | None:
        """Return the exit status if the process has ended (negative: killed by that signal), else None."""
        return self._watch(0)

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for the process to end.

        Args:
            timeout: Seconds; None waits for ever.

        Returns:
            Its exit status, negative when a signal killed it.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            returncode = self._watch(left)
            if returncode is not None:
                return returncode
            if left == 0:
                from subprocess import TimeoutExpired

                raise TimeoutExpired(self.args, timeout if timeout is not None else 0.0)

    def _watch(self, timeout: float | None) -> int | None:
        """Take in events until there is none in time, or the process has ended; returns its status."""
        while self.returncode is None:
            try:
                event = support.next_event(self.channel, timeout)
            except InterruptedError:
                continue  # the signal's handler has run
            except BrokenPipeError:
                self._end(-signal.SIGKILL)  # somebody killed the supervisor, and that its program
                break
            if event is None:
                break
            self._take(event)
            if timeout is not None:
                timeout = 0.0
        return self.returncode

    def _take(self, event: support.Event) -> None:
        if event.kind == support.ENDED:
            lingering = event.stage == support.STAGE_LINGERING
            self._end(os.waitstatus_to_exitcode(event.value), lingering=lingering)

    def _end(self, returncode: int, *, lingering: bool = False) -> None:
        self.returncode = returncode
        self._read_control(wait=False)
        for fd in (self.channel, self._control, self.pidfd):
            os.close(fd)
        self.channel = self._control = self.pidfd = -1
        if self._supervisor is None:
            return  # a child of the pool that it came from
        if lingering:
            linger(self._supervisor)
        else:
            support.reap(self._supervisor, wait=True)

    def __del__(self) -> None:
        """Close what is open; the process goes on."""
        for name in ("channel", "_control", "pidfd"):
            fd = getattr(self, name, -1)
            if fd >= 0:
                os.close(fd)
                setattr(self, name, -1)

    # ---- signals -----------------------------------------------------------

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.poll() is None:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                return  # it has just ended; wait() will tell

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    # ---- the hand-over -----------------------------------------------------

    @property
    def started(self) -> bool:
        """Whether the program's own code has begun to run in the restored process."""
        self._read_control(wait=False)
        return self._told.startswith(STARTED)

    @property
    def handover_error(self) -> str | None:
        """What went wrong in the restored process before the program's own code could run."""
        self._read_control(wait=False)
        return self._told[1:].decode() if self._told.startswith(ERROR) else None

    def wait_ready(self, timeout: float | None = None) -> None:
        """
        Wait until the after-hooks are through in the restored process.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            RestoreError: It ended before that.
            TimeoutError: The time is up.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._told.startswith(STARTED + READY):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if self._read_control(wait=True, timeout=left):
                continue
            if left == 0:
                message = f"the restored process (pid {self.pid}) was not ready within {timeout} seconds"
                raise TimeoutError(message)
            returncode = self.wait()
            reason = self.handover_error or f"it ended with status {returncode}"
            message = f"the restored process (pid {self.pid}) did not become ready: {reason}"
            raise RestoreError(message)

    def _read_control(self, *, wait: bool, timeout: float | None = None) -> bool:
        """Read what the restored process has told; False at its end, or when the time is up."""
        import select

        if self._control < 0:
            return False
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        milliseconds = 0 if not wait else None if timeout is None else timeout * 1000
        while poller.poll(milliseconds):
            try:
                data = os.read(self._control, 65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return False
            self._told += data
            if wait:
                return True
            milliseconds = 0
        return False

    # ---- pipes -------------------------------------------------------------

    def communicate(self, data: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """
        Write to stdin, read stdout and stderr to their ends, and wait.

        Args:
            data: What to write, bytes or text as the pipes are; needs `stdin=PIPE`.
            timeout: Seconds; None waits for ever.

        Returns:
            What was read from stdout and stderr, None for one that is not a pipe.

        Raises:
            subprocess.TimeoutExpired: The process has not ended in time; a further call goes on
                without losing anything.
        """
        from libcriu_py.copies.communicate import Exchange, encoded

        if self._exchange is None:
            self._exchange = Exchange(self, encoded(self.stdin, data))
        deadline = None if timeout is None else time.monotonic() + timeout
        result: tuple[Any, Any] = self._exchange.run(deadline, timeout)
        self.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return result
