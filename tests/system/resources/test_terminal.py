"""What libraries know of the terminal: a copy shows and edits what a conventional start would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.cli_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

COLOURS = """
import click
import shutil
from rich.console import Console
click.secho("click", fg="red")
click.echo(click.style("styled", bold=True))
console = Console()
console.print("[red]rich[/red]", console.width, console.color_system, console.is_terminal)
print(shutil.get_terminal_size())
"""
EDITING = """
import readline
print(repr(input("> ")))
"""


def ways(mode: Mode, directory: Path, code: str, preload: str) -> list[list[str]]:
    """Return the conventional command line of a program, and that of a copy with its libraries loaded."""
    script = directory / "program.py"
    script.write_text(code)
    mode.account.give(script)
    command = [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap"]
    made = mode.run([*command, "--preload", preload, script])
    assert made.returncode == 0, made.stderr
    restored = ["-m", "libcriu_py", "run", "--no-fallback", str(directory / "snap")]
    return [[str(mode.account.python), *arguments] for arguments in ([str(script)], restored)]


def terminal_of(mode: Mode, term: str, argv: list[str], columns: int) -> Terminal:
    """Run a program at a terminal, and with nothing in its environment that tells of another one."""
    environment = mode.account.environment(**mode.env)
    return Terminal([*mode.prefix, f"TERM={term}", *argv], env=environment, columns=columns, owner=mode.account.uid)


@pytest.mark.parametrize("term", ["xterm-256color", "dumb"])
def test_colours(term: str, mode: Mode, directory_of: Directories) -> None:
    """Both click and rich show colours at a terminal that has them, whatever the dump had, and none in a pipe."""
    seen = []
    for argv in ways(mode, directory_of(mode.account), COLOURS, "click,rich.console,shutil"):
        with terminal_of(mode, term, argv, 93) as terminal:
            at_terminal = terminal.rest()
            assert terminal.wait() == 0
        in_pipe = mode.run(argv, env={"TERM": term}).stdout
        assert ("\x1b[31mclick" in at_terminal, "\x1b[31mrich" in at_terminal) == (True, term != "dumb")
        assert "columns=93" in at_terminal
        assert "\x1b" not in in_pipe
        seen.append((at_terminal, in_pipe))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_editing(term: str, mode: Mode, directory_of: Directories) -> None:
    """A line is edited with the keys, the sequences and the width of the terminal of the copy, whose modes are left."""
    import termios

    seen = []
    for argv in ways(mode, directory_of(mode.account), EDITING, "readline"):
        with terminal_of(mode, term, argv, 120) as terminal:
            before = termios.tcgetattr(terminal.fd)
            terminal.expect("> ")
            terminal.type("x" * 100 + "ab\x02\x02-\x01+\r")  # Ctrl-B is one to the left, Ctrl-A the beginning
            assert terminal.rest().endswith(f"'+{'x' * 100}-ab'\n")
            assert terminal.wait() == 0
            assert termios.tcgetattr(terminal.fd) == before
        seen.append(terminal.seen)
    assert seen[0] == seen[1]
