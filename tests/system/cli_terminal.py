"""A terminal for tests: a process, or an interactive shell, at the other end of a pseudoterminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

PROMPT = "prompt-8b1f> "
PATIENCE = 20.0
"""Seconds until something that was expected is given up."""


class Terminal:
    """
    A pseudoterminal and the leader of its session.

    Args:
        argv: What to start; the terminal is its controlling terminal.
        env: Its environment.
        rows: Height of the terminal.
        columns: Width of the terminal.
        owner: Whose terminal it is, as after a login; None leaves it to us.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 200,
        owner: int | None = None,
    ) -> None:
        self.seen = ""
        self._given = 0
        self.fd, slave = pty.openpty()
        try:
            self.resize(rows, columns)
            if owner is not None:
                os.fchown(slave, owner, -1)
            self.process = subprocess.Popen(
                ["/usr/bin/setsid", "--ctty", *argv], stdin=slave, stdout=slave, stderr=slave, env=env
            )
        finally:
            os.close(slave)

    @classmethod
    def with_shell(
        cls, prefix: Sequence[str] = (), *, env: Mapping[str, str] | None = None, owner: int | None = None
    ) -> Terminal:
        """
        Start an interactive shell, with job control, and wait for its prompt.

        Args:
            prefix: What its command line begins with.
            env: Its environment.
            owner: Whose terminal it is.

        Returns:
            The terminal.
        """
        settings = {"PS1": PROMPT, "TERM": "dumb", "LC_ALL": "C", "HISTFILE": ""}
        variables = {**(os.environ if env is None else env), **settings}
        terminal = cls([*prefix, "/bin/bash", "--norc", "--noprofile", "--noediting", "-i"], env=variables, owner=owner)
        terminal.expect(re.escape(PROMPT))
        return terminal

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, which ends everything in the session, and reap its leader."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._foreground() or self.process.pid, signal.SIGKILL)
        os.close(self.fd)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resize(self, rows: int, columns: int) -> None:
        """
        Change the size of the window; the kernel tells the foreground process group.

        Args:
            rows: New height.
            columns: New width.
        """
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        r"""
        Type on the keyboard.

        Args:
            text: What to type; "\\x03" is Ctrl-C, "\\x1a" Ctrl-Z, "\\x04" Ctrl-D.
        """
        os.write(self.fd, text.encode())

    def expect(self, pattern: str) -> re.Match[str]:
        """
        Wait until something appears on the screen after what was last waited for.

        Args:
            pattern: A regular expression.

        Returns:
            The match.

        Raises:
            AssertionError: It did not appear in time, or everything at the terminal ended.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            match = re.compile(pattern).search(self.seen, self._given)
            if match:
                self._given = match.end()
                return match
            data = self._read(deadline)
            if not data:
                message = f"{pattern!r} did not appear; on the screen since the last match:\n{self.seen[self._given :]}"
                raise AssertionError(message)

    def rest(self) -> str:
        """
        Wait until everything at the terminal has ended.

        Returns:
            What appeared since the last match.
        """
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.seen[self._given :]

    def shell(self, command: str) -> None:
        """
        Type a command line for the shell.

        Args:
            command: The line, without its end.
        """
        self.type(command + "\n")

    def await_foreground(self) -> None:
        """
        Wait until the shell has given the terminal to a job: it says so before it does.

        Raises:
            AssertionError: It did not in time.
        """
        deadline = time.monotonic() + PATIENCE
        while self._foreground() in {0, self.process.pid}:
            if time.monotonic() > deadline:
                message = "the shell has kept the terminal for itself"
                raise AssertionError(message)
            os.sched_yield()

    def prompt(self) -> str:
        """
        Wait for the prompt of the shell.

        Returns:
            What appeared before it, since the last match.
        """
        start = self._given
        match = self.expect(re.escape(PROMPT))
        return self.seen[start : match.start()]

    def wait(self) -> int:
        """
        Wait for the end of the session leader.

        Returns:
            Its exit status, negative for a signal.
        """
        return self.process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        """Add what appears next to `seen`; False at the end or after the deadline."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def _foreground(self) -> int:
        """Return the foreground process group of the terminal; 0 if it has none."""
        try:
            return os.tcgetpgrp(self.fd)
        except OSError:
            return 0
