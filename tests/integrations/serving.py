"""Servers under test: start one, ask it, end it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BIN = Path(sys.executable).parent
LIMIT = 30.0


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


def environment(**more: str) -> dict[str, str]:
    """Return the environment of programs under test."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1", **more}


def take(directory: Path, *words: object, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Take a snapshot, and return what the command says."""
    command = [str(BIN / "libcriu-py"), "snapshot", "-o", str(directory), "--replace", *map(str, words)]
    done: subprocess.CompletedProcess[str] = subprocess.run(
        command, cwd=cwd, env=env or environment(), capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "not preloaded" not in done.stderr, done.stderr
    return done.stdout + done.stderr


class Server:
    """A server that has been started, whose output is in a file."""

    def __init__(
        self, words: Sequence[object], port: int, *, cwd: Path, pass_fds: Sequence[int] = (), **more: str
    ) -> None:
        """
        Start it.

        Args:
            words: The command.
            port: Where it will listen, or the descriptor does.
            cwd: Its working directory, and that of its output.
            pass_fds: Descriptors that it gets.
            more: Variables.
        """
        self.port = port
        self.output = cwd / f"output-{time.monotonic_ns()}"
        self.begun = time.perf_counter()
        with self.output.open("wb") as file:
            self.process = subprocess.Popen(
                [str(word) for word in words],
                cwd=cwd,
                env=environment(**more),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )

    def first(self, path: str = "/health") -> float:
        """Return the seconds from the start to the first answer."""
        while True:
            with contextlib.suppress(ConnectionError):
                self.get(path)
                return time.perf_counter() - self.begun
            assert self.process.poll() is None, self.said()
            assert time.perf_counter() - self.begun < LIMIT, self.said()
            time.sleep(0.001)

    def get(self, path: str = "/health") -> Any:
        """Return what it answers to a request by a connection of its own."""
        return ask(self.port, path)

    def end(self, number: int = signal.SIGTERM) -> float:
        """End it, and return the seconds that this takes."""
        begun = time.perf_counter()
        self.process.send_signal(number)
        self.process.wait(LIMIT)
        return time.perf_counter() - begun

    def said(self) -> str:
        """Return its output."""
        return self.output.read_text(encoding="utf-8", errors="replace")


def ask(port: int, path: str = "/health") -> Any:
    """Return what the server at a port answers, parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
    except http.client.RemoteDisconnected as error:
        raise ConnectionResetError(str(error)) from error
    finally:
        connection.close()
    assert answer.status == 200, body
    return json.loads(body)


@contextlib.contextmanager
def running(
    words: Sequence[object], port: int, *, cwd: Path, pass_fds: Sequence[int] = (), **more: str
) -> Iterator[Server]:
    """Start a server, and end it after the block."""
    server = Server(words, port, cwd=cwd, pass_fds=pass_fds, **more)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(10)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
