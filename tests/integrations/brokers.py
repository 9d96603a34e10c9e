"""A redis server on loopback, and workers that take tasks from it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COMMAND = str(Path(sys.executable).with_name("libcriu-py"))
LIMIT = 60


class Broker(NamedTuple):
    """A redis server."""

    url: str
    client: Any
    env: dict[str, str]
    """What workers find it by."""


@contextmanager
def serve(directory: Path) -> Iterator[Broker]:
    """Start a redis server on a free port, and end it."""
    import redis

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"redis://127.0.0.1:{port}/0"
            client = redis.Redis(port=port, decode_responses=True)
            wait(lambda: answers(client))
            env = {"CELERY_BROKER_URL": url, "RQ_REDIS_URL": url}
            yield Broker(url, client, {**os.environ, **env})
            client.close()
        finally:
            process.terminate()


def answers(client: Any) -> bool:
    """Return whether the server answers."""
    import redis

    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def wait(condition: Callable[[], object], limit: float = 30) -> None:
    """Wait until something that happens elsewhere has happened."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)


@contextmanager
def worker(argv: Sequence[str], place: Path, broker: Broker) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker with its log in the directory, and end it as a service manager does, if it has not ended."""
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(argv, cwd=place, env=broker.env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(LIMIT) == 0
    except AssertionError:
        print((place / "log").read_text())
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def snapshot(words: Sequence[str], place: Path, broker: Broker) -> None:
    """Make `worker.snap` in the directory."""
    argv = [COMMAND, "snapshot", "-o", "worker.snap", *words]
    done = subprocess.run(argv, cwd=place, env=broker.env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
