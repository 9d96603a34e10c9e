"""The test program of the command, started in the two ways that are compared."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.system.conftest import Mode

SOURCE = Path(__file__).parent / "cli_program.py"
TIMEOUT = 60


class SampleProgram(NamedTuple):
    """
    The test program, and a snapshot of it.

    Attributes:
        mode: How restores are allowed, and whose program and snapshot are.
        directory: Where they are.
    """

    mode: Mode
    directory: Path

    @classmethod
    def in_directory(cls, mode: Mode, directory: Path) -> SampleProgram:
        """Put the program into a directory of the mode's account, and take a snapshot of it."""
        script = directory / "program.py"
        shutil.copyfile(SOURCE, script)
        mode.account.give(script)
        make_snapshot(mode, directory / "snap", script)
        return cls(mode, directory)

    @property
    def conventional(self) -> list[str]:
        """The command that starts the program without any snapshot."""
        return [*self.mode.prefix, str(self.mode.account.python), str(self.directory / "program.py")]

    @property
    def restored(self) -> list[str]:
        """The command that restores it."""
        return [*self.mode.command, "run", "--no-fallback", str(self.directory / "snap")]


class Way(NamedTuple):
    """
    A way to start the test program.

    Attributes:
        mode: How it is allowed, and who does it.
        argv: The command line up to the program's arguments.
    """

    mode: Mode
    argv: list[str]


def make_snapshot(mode: Mode, directory: Path, *args: object) -> Path:
    """
    Take a snapshot with the command.

    Args:
        mode: How.
        directory: Where.
        args: What of.

    Returns:
        The directory.
    """
    command = [*mode.command, "snapshot", "-o", str(directory), *map(str, args)]
    subprocess.run(command, check=True, timeout=TIMEOUT, cwd=mode.account.home)
    return directory
