"""Servers: from the start to the first answer, of the applications in examples/servers."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.integrations import Case

EXAMPLES = Path(__file__).parents[2] / "examples" / "servers"
BIN = Path(sys.executable).parent
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _prepare(place: Path, *, words: str, preload: str) -> None:
    """Copy the applications, and take a snapshot."""
    shutil.copytree(EXAMPLES, place, dirs_exist_ok=True)
    (place / "warm_wsgi.py").write_text(
        "from libcriu_py import warm_app\nfrom wsgi import app\nwarm_app(app, ['/health'])\n"
    )
    port = _port()
    options = ["--exit", "fast", "--learn-until", str(port), *(["--preload", preload] if preload else [])]
    command = [str(BIN / "libcriu-py"), "snapshot", "-o", "snap", *options, *words.replace("PORT", str(port)).split()]
    subprocess.run(command, cwd=place, check=True, capture_output=True)


def _conventional(place: Path, *, words: str) -> float:
    program, *arguments = words.split()
    return _first_answer([str(BIN / program), *arguments], place)


def _warm(place: Path, *, words: str) -> float:
    return _first_answer([str(BIN / "libcriu-py"), "run", "snap", *words.split()[1:]], place)


def _first_answer(words: list[str], place: Path) -> float:
    """Start a server, return the seconds to its first answer, and end it."""
    port = _port()
    begun = time.perf_counter()
    server = subprocess.Popen(
        [word.replace("PORT", str(port)) for word in words],
        cwd=place,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not _answers(port):
            if server.poll() is not None:
                message = f"{words} ended with status {server.returncode}"
                raise RuntimeError(message)
            time.sleep(0.0005)
        return time.perf_counter() - begun
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(REQUEST)
            return connection.recv(4096).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _case(name: str, bar: float, words: str, preload: str = "") -> Case:
    return Case(
        f"{name}, first answer",
        bar,
        partial(_prepare, words=words, preload=preload),
        partial(_conventional, words=words),
        partial(_warm, words=words),
    )


_UVICORN = "uvicorn app:app --port PORT"
_HYPERCORN = "hypercorn app:app -b 127.0.0.1:PORT -w 0"
_GUNICORN = "gunicorn wsgi:app -b 127.0.0.1:PORT"
CASES = [
    _case("uvicorn", 10, _UVICORN),
    _case("uvicorn, `warm_app`", 20, _UVICORN, "warm"),
    _case("hypercorn", 10, _HYPERCORN),
    _case("hypercorn, `warm_app`", 20, _HYPERCORN, "warm"),
    _case("gunicorn", 10, _GUNICORN),
    _case("gunicorn, `warm_app`", 20, _GUNICORN, "warm_wsgi"),
]
