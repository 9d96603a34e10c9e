"""The launcher, `libcriu-py-run` (csrc/launcher/launcher.c): find it, or exec it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
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


def list_mismatches(directory: str, env: Mapping[str, str] | None = None) -> list[str]:
    """
    Return why a snapshot cannot be restored here, a sentence for each reason.

    Args:
        directory: Its directory.
        env: Variables that are to be others than here.

    Raises:
        CriuError: The program was not built, or cannot use the snapshot.
    """
    import subprocess

    command = [path(), "--list-mismatches", "--", directory]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, check=False)
    if done.returncode != 0:
        from libcriu_py.errors import SnapshotError

        raise SnapshotError(os.fsdecode(done.stderr).strip())
    return [os.fsdecode(text) for text in done.stdout.split(b"\0")[:-1]]


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
