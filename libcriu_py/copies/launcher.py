"""The launcher, `libcriu-py-run` (csrc/launcher/launcher.c): find it, or exec it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

NAME = "libcriu-py-run"


def find() -> str | None:
    """Return the path of the launcher, or None if it was not built."""
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", NAME)
    return path if os.access(path, os.X_OK) else None


def path() -> str:
    """
    Return the path of the launcher.

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
    Replace this process by the launcher.

    Args:
        arguments: The launcher's arguments.

    Raises:
        CriuError: It was not built.
    """
    import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

    launcher = path()
    # Python ignores these signals; the started program would inherit that.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    os.execv(launcher, [launcher, *arguments])
