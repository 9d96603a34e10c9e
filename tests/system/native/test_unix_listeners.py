"""Listening UNIX sockets: copies bind them anew, one at a time, and others start conventionally."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.native.conftest import Run

BEFORE = """
s = socket.socket(socket.AF_UNIX, socket.{type}); name = {name}
s.bind(name), s.listen(7)
if isinstance(name, str):
    os.chmod(name, 0o640)
"""
SERVE = """
c = socket.socket(socket.AF_UNIX, s.type); c.connect(name); c.send(b"x"); a, _ = s.accept()
print(s.getsockname() == name, a.recv(9), flush=True)
print(oct(os.stat(name).st_mode) if isinstance(name, str) else "", flush=True)
"""
NAMES = {"path": "sys.argv[0] + '.socket'", "abstract": "b'\\0' + os.fsencode(sys.argv[0])"}


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])
@pytest.mark.parametrize("name", NAMES)
def test_copy_listens(name: str, kind: str, dump: Run) -> None:
    """A copy listens where the process did, with the path's permissions, also where that has left its socket."""
    outcome = dump(BEFORE.format(name=NAMES[name], type=kind), SERVE)
    shown = f"True b'x'\n{'0o140640' if name == 'path' else ''}\n"
    for _ in range(2):
        assert outcome.copy() == shown


@pytest.mark.parametrize("name", NAMES)
def test_one_at_a_time(name: str, dump: Run) -> None:
    """Where another process listens, a copy cannot: that goes on to be asked."""
    outcome = dump(BEFORE.format(name=NAMES[name], type="SOCK_STREAM"), SERVE + "a.send(b'y'); input()")
    program = launcher.find()
    assert program is not None
    argv = [program, "--no-fallback", str(outcome.snapshot)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "True b'x'\n"
        done = outcome.start()
        assert done.returncode == 125
        assert "a listening socket (descriptor 3 of the program) cannot be made: Address already in use" in done.stderr
        first.communicate("\n")
    assert first.returncode == 0


def test_many_at_once(dump: Run, tmp_path: Path) -> None:
    """Of many copies that start at once on the path of the dumped process, one has it."""
    outcome = dump(BEFORE.format(name=NAMES["path"], type="SOCK_STREAM"), "print('up', flush=True); input()")
    program = launcher.find()
    assert program is not None
    argv = [program, "--no-fallback", str(outcome.snapshot)]
    copies = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for _ in range(16)
    ]
    lines = [copy.stdout.readline() for copy in copies if copy.stdout is not None]
    assert sorted(lines) == [""] * 15 + ["up\n"]
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(BlockingIOError):
        client.setblocking(False)
        # The others have asked too, and may have filled its queue.
        client.connect(str(tmp_path / "program.py.socket"))
    for copy in copies:
        copy.communicate("\n")
    assert sorted(copy.returncode for copy in copies) == [0] + [125] * 15
