"""The program that restores, `libcriu-py-run` (csrc/launcher/launcher.c): where it is, and becoming it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

NAME = "libcriu-py-run"


def find() -> str | None:
    """
    Find the program.

    Returns:
        Its path, or None where it was not built.
    """
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", NAME)
    return path if os.access(path, os.X_OK) else None


def path() -> str:
    """
    Return the path of the program.

    Raises:
        CriuError: It was not built.
    """
    found = find()
    if found is None:
        from libcriu_py.errors import CriuError

        message = f"{NAME}, which restores snapshots, was not built; install the package again"
        raise CriuError(message)
    return found


def become(arguments: Sequence[str]) -> NoReturn:
    """
    Become the program.

    Args:
        arguments: Its command line behind its name.

    Raises:
        CriuError: It was not built.
    """
    import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

    launcher = path()
    # Python ignores these for itself, and what is started would inherit that.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    os.execv(launcher, [launcher, *arguments])
