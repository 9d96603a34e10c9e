"""What the command does at a terminal while it works, and where it is interrupted."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.cli_command import Command, write
from tests.system.cli_terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

CTRL_C = "\x03"


def at_terminal(command: Command, *args: object) -> Terminal:
    """Start the command at a terminal of its own."""
    return Terminal([*command.mode.command, *map(str, args)], owner=command.mode.account.uid)


@pytest.fixture(name="waiting")
def waiting_fixture(command: Command) -> Path:
    """Return a program that says when it is imported, and then takes its time."""
    write(command.place / "slow.py", "import time\nprint('ready', flush=True)\ntime.sleep(1000)\n")
    return write(command.place / "app.py", "import slow\n")


@pytest.mark.parametrize(
    "subcommand", [("snapshot", "-o", "snap"), ("preflight",), ("snapshot", "--learn", "", "-o", "s")]
)
def test_interrupt_is_one_line(command: Command, waiting: Path, subcommand: tuple[str, ...]) -> None:
    """Ctrl-C ends the command by SIGINT, says so in place of tracebacks, and leaves nothing."""
    words = [str(command.place / word) if word in {"s", "snap"} else word for word in subcommand]
    with at_terminal(command, *words, waiting) as terminal:
        terminal.expect("ready\n")
        terminal.type(CTRL_C)
        rest = terminal.rest()
        assert terminal.wait() == -signal.SIGINT, rest
    assert rest.endswith("libcriu-py: interrupted\n")
    assert "Traceback" not in rest
    assert sorted(path.name for path in command.place.iterdir() if path.suffix) == ["app.py", "slow.py"]


def test_progress_is_shown_at_a_terminal(command: Command) -> None:
    """A second after modules begin to be imported a line says so, and goes when they are; a pipe never gets it."""
    write(command.place / "slow.py", "import sys\nsys.stdin.readline()\n")
    app = write(command.place / "app.py", "import slow\nprint('a copy')\n")
    with at_terminal(command, "snapshot", "-o", command.place / "snap", app) as terminal:
        terminal.expect(r"\rlibcriu-py: importing modules \(\d+ s\)\x1b\[K\r")
        terminal.type("\n")
        terminal.expect(r"\r\x1b\[Klibcriu-py: imported ")
        rest = terminal.rest()
        assert terminal.wait() == 0, rest
    assert "importing" not in rest
    assert command.restored(command.place / "snap", input="\n") == "a copy\n"


def test_progress_of_a_dump(one: Command) -> None:
    """The size of what has been written is shown, until the snapshot is there."""
    directory = one.place / "snap"
    directory.mkdir(mode=0o700)
    code = f"""
import os, sys
from libcriu_py.cli.snapshot import _saving
from libcriu_py.program.progress import Progress
with Progress(lambda: _saving({str(directory)!r})):
    with open({str(directory / "memory.img")!r}, "wb") as file:
        file.write(bytes(3 << 20))
    sys.stdin.readline()
print("done")
"""
    with Terminal([str(one.mode.account.python), "-c", code]) as terminal:
        terminal.expect(rf"libcriu-py: saving {directory}: 3\.1\d? MB \(\d+ s\)")
        terminal.type("\n")
        assert terminal.rest().endswith("\r\x1b[Kdone\n")
        assert terminal.wait() == 0
