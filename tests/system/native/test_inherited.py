"""What a program was started with belongs to its caller: copies have what their own caller gives them there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.native.conftest import Run

LEAKED, ALSO = 100, 101
"""Numbers that no program has by itself."""
AFTER = """
    def there(fd):
        try:
            return os.read(fd, 9)
        except OSError as error:
            return error.strerror
    print(there(100))
    """


@pytest.fixture(name="given")
def given_fixture() -> Iterator[int]:
    """Open a pipe with something to read, for a copy."""
    reading, writing = os.pipe()
    os.write(writing, b"the copy's")
    os.close(writing)
    os.dup2(reading, LEAKED)
    os.close(reading)
    yield LEAKED
    os.close(LEAKED)


def leak(kind: str) -> list[int]:
    """Open something of which the one end stays here; return what to close."""
    if kind == "socket":
        ends = [end.detach() for end in socket.socketpair()]
    else:
        ends = [*os.openpty()] if kind == "terminal" else [*os.pipe()]
    kept, leaked = ends if kind != "end that reads" else reversed(ends)
    os.dup2(leaked, LEAKED)
    os.close(leaked)
    return [LEAKED, kept]


@pytest.mark.parametrize("kind", ["end that writes", "end that reads", "socket", "terminal"])
def test_leaked_descriptor(kind: str, given: int, dump: Run) -> None:
    """One that leads out of the process is no obstacle, and what a copy has there is its own caller's, or nothing."""
    os.close(given)
    opened = leak(kind)
    outcome = dump("", AFTER, pass_fds=[LEAKED])
    for fd in opened:
        os.close(fd)
    assert outcome.copy() == "Bad file descriptor\n"
    reading, writing = os.pipe()
    os.write(writing, b"new")
    os.dup2(reading, LEAKED)
    for fd in (reading, writing):
        os.close(fd)
    done = outcome.start(pass_fds=[LEAKED])
    assert (done.stdout, done.stderr) == ("b'new'\n", "")


def test_both_ends_of_the_jobserver(given: int, dump: Run) -> None:
    """The pipe of make's jobserver is the caller's, although both of its ends are here."""
    reading, writing = os.pipe()
    os.dup2(writing, ALSO)
    os.dup2(reading, given)
    make = {"MAKEFLAGS": f" -j2 --jobserver-auth={LEAKED},{ALSO}"}
    outcome = dump("", AFTER, pass_fds=[LEAKED, ALSO], env=make)
    os.write(writing, b"+")
    done = outcome.start(pass_fds=[LEAKED])
    for fd in (reading, writing, ALSO):
        os.close(fd)
    assert (done.stdout, done.stderr) == ("b'+'\n", "")


@pytest.mark.parametrize("changed", ["duplicate", "replaced"])
def test_descriptor_that_the_program_uses(changed: str, given: int, dump: Run) -> None:
    """One that the program has a duplicate of, or has opened itself, is the program's."""
    before = {
        "duplicate": "duplicate = os.dup(100)",
        "replaced": "r, w = os.pipe(); os.dup2(r, 100); os.close(r); os.close(w)",
    }
    outcome = dump(before[changed], pass_fds=[given])
    assert outcome.status == 1
    assert "has a pipe whose other end is not open in the process" in outcome.errors


@pytest.mark.parametrize("kind", ["connection", "device"])
def test_what_a_library_may_have_opened(kind: str, given: int, dump: Run, tmp_path: Path) -> None:
    """A connection to a name, or a device, that exec would not close is refused: it need not be of the start."""
    os.close(given)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        client.connect(str(tmp_path / "socket"))
        device = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
        os.dup2(client.fileno() if kind == "connection" else device, given)
        os.close(device)
        outcome = dump("", pass_fds=[given])
    assert outcome.status == 1
    reason = {"connection": "holds a socket that is not connected inside", "device": "has a device open (/dev/ptmx"}
    assert reason[kind] in outcome.errors


def test_command_in_such_a_shell(given: int, tmp_path: Path) -> None:
    """The command `snapshot` needs no criu for it."""
    program = tmp_path / "program.py"
    program.write_text("print(__import__('os').read(100, 20))", encoding="utf-8")
    outputs = []
    for words in (["snapshot", "-o", "snap", "--engine", "native", program], ["run", "--no-fallback", "snap"]):
        command = [sys.executable, "-m", "libcriu_py", *words]
        done = subprocess.run(command, cwd=tmp_path, pass_fds=[given], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[-1] == 'b"the copy\'s"\n'
