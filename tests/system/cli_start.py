"""
Start the test program in the two ways that are compared.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LIBCRIU_PY = [sys.executable, "-m", "libcriu_py"]
PROGRAM = str(Path(__file__).parent / "cli_program.py")
WAYS = ["conventional", "restored"]
TIMEOUT = 60


def make_snapshot(directory: Path, *args: str) -> Path:
    """
    Take a snapshot with the command.

    Args:
        directory: Where.
        args: What of; the test program if nothing is given.

    Returns:
        The directory.
    """
    subprocess.run([*LIBCRIU_PY, "snapshot", "-o", str(directory), *(args or [PROGRAM])], check=True, timeout=TIMEOUT)
    return directory


def command(way: str, snapshot: Path) -> list[str]:
    """
    Return what starts the test program, up to its arguments.

    Args:
        way: One of `WAYS`.
        snapshot: The snapshot of the program.

    Returns:
        A command line.
    """
    if way == "conventional":
        return [sys.executable, PROGRAM]
    return [*LIBCRIU_PY, "run", "--no-fallback", str(snapshot)]
