"""An interactive session in a copy is one of the interpreter, to the letter."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher
from tests.system.cli_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.system.python.conftest import Warm

INTERRUPT = "interrupt"
"""A SIGINT: a Ctrl-C typed would also throw away what the terminal has not shown yet."""
LINES = (
    *("1+1\n", "import sys; sys.argv, sys.orig_argv[1:], sys.flags\n", "sorted(globals())\n", "1/0\n", "x = = 1\n"),
    *("def f():\n", "    return 3\n", "\n", "f()\n", INTERRUPT, "raise KeyboardInterrupt\n", "help\n"),
    *("from_startup\n", "__name__, type(__loader__), '__file__' in globals()\n", "print('readline' in sys.modules)\n"),
)


def _await_sleep(pid: int) -> None:
    """Wait until a process waits for something."""
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "S":
        assert time.monotonic() < deadline


def talk(argv: Sequence[str], startup: Path, end: str) -> tuple[int, str]:
    """Type the lines, each when it is asked for, and return status and screen."""
    env = {
        **os.environ,
        "TERM": "dumb",
        "PYTHON_COLORS": "0",
        "PYTHONSTARTUP": str(startup),
        "PYTHON_HISTORY": "/dev/null",
    }
    with Terminal(argv, env=env) as terminal:
        for line in (*LINES, end):
            terminal.expect(r"(>>>|\.\.\.) $")  # or the terminal might show it before the line editor does
            if line == INTERRUPT:
                _await_sleep(terminal.process.pid)  # earlier, it is noted and nothing more, also by the interpreter
                os.kill(terminal.process.pid, signal.SIGINT)
            else:
                terminal.type(line)
        status = terminal.process.wait(20)
        return status, terminal.seen


@pytest.mark.parametrize(("arguments", "end", "status"), [([], "exit(5)\n", 5), (["-q", "-"], "\x04", 0)])
def test_session(arguments: list[str], end: str, status: int, warm: Warm, tmp_path: Path) -> None:
    """The banner, prompts, errors, interrupts and the end are the same, and the modules are there."""
    startup = tmp_path / "startup.py"
    startup.write_text("from_startup = 'hello'\nprint('starting', flush=True)\n", encoding="utf-8")
    found = talk([launcher.path(), str(warm.snapshot), *arguments], startup, end)
    assert found == talk([sys.executable, *arguments], startup, end)
    assert found[0] == status
    assert "starting" in found[1]
    with Terminal([launcher.path(), str(warm.snapshot), *arguments]) as terminal:
        terminal.expect(r">>> ")
        terminal.type("import sys; 'colorsys' in sys.modules\n")
        terminal.expect("True")


def test_startup_file_that_fails(warm: Warm, tmp_path: Path) -> None:
    """It is shown as by the interpreter, and the session goes on."""
    startup = tmp_path / "startup.py"
    startup.write_text("def f():\n    1/0\nf()\n", encoding="utf-8")
    screens = []
    for argv in ([launcher.path(), str(warm.snapshot)], [sys.executable]):
        for path in (startup, tmp_path / "nosuch"):
            with Terminal(argv, env={**os.environ, "TERM": "dumb", "PYTHONSTARTUP": str(path)}) as terminal:
                terminal.expect(r">>> $")
                screens.append(terminal.seen)
    assert screens[:2] == screens[2:]
