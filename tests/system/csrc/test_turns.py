"""What one copy at a time can have: addresses, and files that criu makes for a moment."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.conftest import CRIU_MODES, MODES, Mode
from tests.system.csrc.test_launcher import Copies, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account

TIMEOUT = 60
COPIES = 8
SERVER = """
import os, socket, sys
{begin}
from libcriu_py import checkpoint
with checkpoint():
    pass
print("listens", flush=True)
sys.stdin.readline()
"""
LISTENERS = {
    "tcp": """
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", {port}))
s.listen()
""",
    "tcp6": """
s = socket.socket(socket.AF_INET6)
s.bind(("::", {port}))
s.listen()
""",
    "udp": """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", {port}))
""",
    "unix": """
s = socket.socket(socket.AF_UNIX)
s.bind(os.path.join(os.path.dirname(os.path.abspath(__file__)), "s.sock"))
s.listen()
""",
    "abstract": """
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind("\\0libcriu_py-{port}")
""",
}


@pytest.fixture(scope="module", params=[name for name in CRIU_MODES if name != "capability"])
def mode(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Mode:
    """Return each mode in which programs can checkpoint themselves."""
    return mode_named(request.param)


@pytest.fixture
def directory(mode: Mode, directory_of: Callable[[Account], Path]) -> Path:
    """Return a directory of the account's own."""
    return directory_of(mode.account)


def start_all(copies: Copies, count: int) -> list[subprocess.Popen[str]]:
    """Start copies at once."""
    return [copies.start(stderr=subprocess.PIPE) for _ in range(count)]


def end_all(started: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """End them; status, output and complaints of each."""
    ended = []
    for process in started:
        out, complaints = process.communicate(timeout=TIMEOUT)
        ended.append((process.returncode, out, complaints))
    return ended


def server(kind: str, port: int) -> str:
    """Return a program that listens and then checkpoints itself."""
    return SERVER.format(begin=LISTENERS[kind].format(port=port))


@pytest.fixture
def port() -> int:
    """Return a port that is free."""
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number


@pytest.mark.parametrize("kind", LISTENERS)
def test_one_copy_has_an_address(mode: Mode, directory: Path, port: int, kind: str) -> None:
    """Of eight at once one listens, and the others say what a conventional start would say."""
    copies = Copies(mode, make(mode, directory, server(kind, port)))
    started = start_all(copies, COPIES)
    waiting = [process for process in started if process.stdout and process.stdout.readline() == "listens\n"]
    ended = end_all(started)
    assert len(waiting) == 1
    assert sum(status == 0 for status, *_ in ended) == 1
    for status, _, complaints in ended:
        assert status == 0 or (status == 125 and "another process has the address" in complaints)
    assert copies.run(input="x\n").stdout == "listens\n"  # the address is free again


def test_conventional_start_says_so(mode: Mode, directory: Path, port: int) -> None:
    """It is what a copy becomes where another program listens; one that listens elsewhere does not matter."""
    copies = Copies(mode, make(mode, directory, server("tcp", port)))
    with contextlib.closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        done = copies.run(options=(), input="x\n")
        assert (done.returncode, done.stdout) == (1, "")
        assert f"another process has the address 127.0.0.1 port {port}" in done.stderr
        assert done.stderr.endswith("OSError: [Errno 98] Address already in use\n")
    assert copies.run(input="x\n").stdout == "listens\n"


CLIENT = """
import socket, sys
from libcriu_py import checkpoint
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.connect(("127.0.0.1", {port}))
with checkpoint():
    pass
client.send(b"hello")
print(client.getsockname()[1], client.recv(100).decode(), flush=True)
sys.stdin.readline()
"""


def test_clients_have_ports_of_their_own(mode: Mode, directory: Path) -> None:
    """A connected UDP socket is no address of one copy: each gets its own answers."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(TIMEOUT)
        copies = Copies(mode, make(mode, directory, CLIENT.format(port=peer.getsockname()[1])))
        started = start_all(copies, 2)
        ports = set()
        for _ in started:
            _, address = peer.recvfrom(100)
            peer.sendto(b"for %d" % address[1], address)
            ports.add(address[1])
        assert len(ports) == len(started)
        assert {(status, out) for status, out, _ in end_all(started)} == {(0, f"{port} for {port}\n") for port in ports}


GHOST = """
import multiprocessing, sys
lock = multiprocessing.RLock()
if sys.argv[1:]:
    with lock:
        print("ran")
"""


def test_deleted_files_at_once(mode_named: Callable[[str], Mode]) -> None:
    """Programs with a semaphore start as often as they are started."""
    mode = mode_named(MODES[0])
    if mode.value == "rootless":
        return  # which criu does not dump there
    directory = mode.account.directory()
    (directory / "program.py").write_text(GHOST)
    copies = Copies(mode, directory / "snap")
    argv = [
        mode.account.python,
        "-m",
        "libcriu_py",
        "snapshot",
        "-o",
        directory / "snap",
        "--preload",
        "locks",
        "program.py",
    ]
    (directory / "locks.py").write_text("import multiprocessing\nlock = multiprocessing.RLock()\n")
    done = mode.run(argv, cwd=directory)
    assert done.returncode == 0, done.stderr
    start = [*copies.command, "--no-fallback", str(copies.path), "--", "x"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for _ in range(3):
        assert end_all([subprocess.Popen(start, **pipes) for _ in range(COPIES)]) == [(0, "ran\n", "")] * COPIES
    shutil.rmtree(directory)
