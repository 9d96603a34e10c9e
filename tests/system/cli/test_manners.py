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
