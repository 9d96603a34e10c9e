"""Processes for the tests of the binding to dump."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

KDAT = {"XDG_RUNTIME_DIR": "/dev/shm"}
"""Where criu keeps its kernel-feature cache, which /run cannot hold where it is not a tmpfs."""

PROLOGUE = """
import os, signal, sys, time
def ready():
    os.write(READY, b"ready")
    os.close(READY)
def wait_for_usr1(status=42):
    ready()
    signal.sigwait({signal.SIGUSR1})
    os._exit(status)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
"""


class Target:
    """
    A Python program in a session of its own that says when it is ready.

    Args:
        code: What it does; `wait_for_usr1()` makes it ready and lets it end with status 42 on SIGUSR1.
        cwd: Its working directory.
        arguments: Its arguments.
        new_session: Whether it leads a session of its own.
        stdin: Its standard input, /dev/null by default.
        stderr_path: Where its standard error goes, /dev/null by default.
    """

    def __init__(
        self,
        code: str,
        *,
        cwd: Path | None = None,
        arguments: tuple[str, ...] = (),
        new_session: bool = True,
        stdin: int | None = subprocess.DEVNULL,
        stderr_path: Path | None = None,
    ) -> None:
        read_end, write_end = os.pipe()
        program = f"READY = {write_end}\n{PROLOGUE}{textwrap.dedent(code)}"
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, read_end)
            stderr = stack.enter_context((stderr_path or Path(os.devnull)).open("ab"))
            self.process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=cwd,
                start_new_session=new_session,
                pass_fds=(write_end,),
            )
            os.close(write_end)
            if os.read(read_end, 5) != b"ready":
                self.end()
                message = f"the target ended with {self.process.returncode} before it was ready"
                raise RuntimeError(message)
            # The end of the pipe: the target has closed it too, so that it is not dumped.
            os.read(read_end, 1)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def __enter__(self) -> Target:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def alive(self) -> bool:
        """Return whether it still runs."""
        return self.process.poll() is None

    def finish(self) -> int:
        """Let it end, and return its exit status."""
        self.process.send_signal(signal.SIGUSR1)
        return self.process.wait(10)

    def wait(self) -> int:
        """Wait until it is gone, and return its exit status."""
        return self.process.wait(10)

    def end(self) -> None:
        """Kill and reap it."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def finish_child(pid: int) -> int:
    """Let a restored child end, and return its exit status."""
    os.kill(pid, signal.SIGUSR1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextlib.contextmanager
def killed(pid: int) -> Iterator[int]:
    """Kill and reap a restored child in the end."""
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
