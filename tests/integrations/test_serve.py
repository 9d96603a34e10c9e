"""A uvicorn that spawns its workers: `libcriu-py serve`."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.integrations.serving import BIN, ask, free_port, running
from tests.integrations.test_servers import ASGI, ask_patiently, write

if TYPE_CHECKING:
    from pathlib import Path


def workers(port: int, without: int = 0) -> set[int]:
    """Ask until three workers have answered, and return their pids."""
    found: set[int] = set()
    deadline = time.monotonic() + 30
    while len(found) < 3:
        assert time.monotonic() < deadline, found
        found |= {ask_patiently(port)} - {without}
    return found


def is_warm(pid: int) -> bool:
    """Return whether a process is a copy, by what its memory is mapped from."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as file:
        return "/snap/" in file.read()


def test_workers_are_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They share the port, each has its lifespan, one that dies is replaced, and all end with the server."""
    place, port = write(tmp_path / "site"), free_port()
    monkeypatch.setenv("LIBCRIU_PY_CACHE", str(tmp_path / "cache"))
    command = [BIN / "libcriu-py", "serve", "app:app", "--workers", "3", "--port", str(port)]
    with running(command, port, cwd=place) as process:
        process.first()
        found = workers(port)
        assert all(map(is_warm, {*found, process.process.pid}))
        killed = found.pop()
        os.kill(killed, signal.SIGKILL)
        assert found < workers(port, without=killed)
        process.end()
        events = re.findall(r"event: (\w+) (\d+)", process.said())
    assert process.process.returncode == 0
    assert {int(pid) for event, pid in events if event == "up"} >= found
    assert {int(pid) for event, pid in events if event == "down"} >= found
    assert len(events) == len({*events})
    assert "Warning" not in process.said()

    (place / "app.py").write_text(ASGI.replace("VERSION = 1", "VERSION = 22"), encoding="utf-8")
    with running(command, port, cwd=place) as process:
        process.first()
        assert ask(port)["version"] == 22


@pytest.mark.parametrize("by", ["option", "variable"])
def test_directory_of_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    """It is uvicorn's --app-dir, also where the working directory has an application of that name."""
    port, other, place = free_port(), tmp_path / "other", write(tmp_path / "site")
    write(other)
    (other / "app.py").write_text(ASGI.replace("VERSION = 1", "VERSION = 22"), encoding="utf-8")
    monkeypatch.setenv("LIBCRIU_PY_CACHE", str(tmp_path / "cache"))
    command = [BIN / "libcriu-py", "serve", "app:app", "--workers", "2", "--port", str(port)]
    if by == "option":
        command += ["--app-dir", "../other"]
    else:
        monkeypatch.setenv("UVICORN_APP_DIR", "../other")
    (tmp_path / "empty").mkdir()
    for directory in (place, tmp_path / "empty"):
        with running(command, port, cwd=directory) as process:
            process.first()
            assert ask(port)["version"] == 22
