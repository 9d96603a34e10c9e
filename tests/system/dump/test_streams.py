"""Standard streams of copies are as a fresh interpreter sets them up, whatever they lead to."""

from __future__ import annotations

import itertools
import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = """
import sys

def describe(stream):
    raw = getattr(stream.buffer, "raw", stream.buffer)
    told = stream.tell() if stream.seekable() and stream.writable() else None
    mine = [stream.isatty(), stream.seekable(), told, stream.line_buffering, stream.write_through, stream.mode]
    text = [stream.encoding, stream.errors, stream.name, type(stream.buffer).__name__]
    return [*mine, *text, raw.name, raw.mode, raw.seekable(), raw.closefd, stream.fileno()]

print("first")
print("error", file=sys.stderr)
with open(sys.argv[1], "w") as report:
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        print(describe(stream), stream is getattr(sys, "__" + stream.name[1:-1] + "__"), file=report)
print("last", end="")
print("error", end="", file=sys.stderr)
"""
KINDS = ("pipe", "file", "end of a file", "terminal", "null")
VARIABLES = ("PYTHONUNBUFFERED", "PYTHONIOENCODING")


def read_until(end: bytes, fd: int) -> bytes:
    """Return what a program has written that writes a text last; a terminal passes it on bit by bit."""
    found = b""
    while not found.replace(b"\r\n", b"\n").endswith(end):
        more = os.read(fd, 4096)
        assert more, found
        found += more
    return found


class Streams:
    """Runs a program with streams of some kinds."""

    def __init__(self, directory: Path) -> None:
        """Write into a directory."""
        self.directory = directory

    def run(self, argv: list[str], kinds: tuple[str, str], unbuffered: str) -> tuple[str, list[bytes]]:
        """Return what the program reports of its streams, and what it has written to them."""
        env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        env |= {"PYTHONUNBUFFERED": unbuffered} if unbuffered else {}
        report = self.directory / "report"
        with ExitStack() as stack:
            pairs = [self._pair(kind, number, stack) for number, kind in enumerate(kinds)]
            (_, out), (_, err) = pairs
            done = subprocess.run(
                [*argv, str(report)], check=False, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=60
            )
            ends = (b"last", b"error\nerror")
            written = [
                b"" if kind == "null" else read_until(end, fd)
                for kind, end, (fd, _) in zip(kinds, ends, pairs, strict=True)
            ]
        assert done.returncode == 0, written
        return report.read_text(encoding="utf-8"), written

    def _pair(self, kind: str, number: int, stack: ExitStack) -> tuple[int, int]:
        """Return a descriptor to read what is written to another one."""
        path = self.directory / f"stream-{number}"
        if kind == "null":
            fds = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
        elif kind == "pipe":
            fds = os.pipe()
        elif kind == "terminal":
            fds = pty.openpty()
        else:
            path.write_bytes(b"before\n" if kind != "file" else b"")
            fds = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
            os.lseek(fds[1], 0, os.SEEK_END)
        for fd in fds:
            stack.callback(os.close, fd)
        return fds


@pytest.mark.parametrize("at_dump", ["", "1"], ids=["buffered", "unbuffered"])
def test_streams_are_as_in_a_fresh_interpreter(at_dump: str, tmp_path: Path) -> None:
    """Output and errors of each kind; also where the variable for unbuffered ones is another than at the dump."""
    program, snapshot = tmp_path / "program.py", tmp_path / "snap"
    program.write_text(PROGRAM, encoding="utf-8")
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    env |= {"PYTHONUNBUFFERED": at_dump} if at_dump else {}
    options = ["snapshot", "--engine", "native", "--exit", "fast", "-o", str(snapshot), str(program)]
    subprocess.run([sys.executable, "-m", "libcriu_py", *options], check=True, env=env, stdin=subprocess.DEVNULL)
    run = str(launcher.find())
    streams = Streams(tmp_path)
    for out, err in itertools.product(KINDS, KINDS):
        for unbuffered in {at_dump, "1" if out == "file" else ""}:
            fresh = streams.run([sys.executable, str(program)], (out, err), unbuffered)
            copy = streams.run([run, "--no-fallback", str(snapshot), "--"], (out, err), unbuffered)
            assert copy == fresh, (out, err, unbuffered)
