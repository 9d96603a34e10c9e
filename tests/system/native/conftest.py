"""Programs that dump themselves by the native engine, and their copies."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import pytest

from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Run = Callable[..., "Outcome"]

TIMEOUT = 60
BEGINNING = "import ctypes, mmap, os, signal, socket, sys, threading, time\nfrom libcriu_py import checkpoint\n"


class Outcome(NamedTuple):
    """How a program's dump ended."""

    snapshot: Path
    status: int
    output: str
    errors: str

    def start(
        self, *arguments: str, prefix: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Start a copy, and wait for its end."""
        program = launcher.find()
        assert program is not None, "libcriu-py-run was not built"
        assert self.status == 0, self.errors
        argv = [*prefix, program, "--no-fallback", str(self.snapshot), "--", *arguments]
        return subprocess.run(argv, check=False, capture_output=True, text=True, timeout=TIMEOUT, pass_fds=pass_fds)

    def copy(self) -> str:
        """Start a copy, and return what it printed."""
        done = self.start()
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout


@pytest.fixture(name="dump")
def dump_fixture(tmp_path: Path) -> Run:
    """Return a function that runs a program around its own dump."""

    def dump(
        before: str,
        after: str = "",
        *,
        then: str = "exit",
        prefix: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        env: Mapping[str, str] | None = None,
    ) -> Outcome:
        path = tmp_path / "snap"
        program = tmp_path / "program.py"
        lines = (
            BEGINNING,
            textwrap.dedent(before),
            f"with checkpoint({str(path)!r}, then={then!r}, engine='native') as snap:\n    pass\n",
            textwrap.dedent(after),
        )
        program.write_text("\n".join(lines), encoding="utf-8")
        done = subprocess.run(
            [*prefix, sys.executable, str(program)],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=pass_fds,
            env={**os.environ, **(env or {})},
        )
        return Outcome(path, done.returncode, done.stdout, done.stderr)

    return dump
