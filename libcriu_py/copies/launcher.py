"""
The launcher that is a program of its own, `libcriu-py-run`: where it is, and becoming it.

It does what `libcriu_py.dump.spawn.run` does without an interpreter to start (csrc/launcher.c). That one
remains for what is not to be compiled, and as the model that the tests hold the program against:
``LIBCRIU_PY_LAUNCHER=python`` selects it.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "libcriu-py-run"
VARIABLE = "LIBCRIU_PY_LAUNCHER"


def find() -> str | None:
    """
    Find the program.

    Returns:
        Its path, or None where it was not built.
    """
    path = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin", NAME)
    return path if os.access(path, os.X_OK) else None


def become(
    snapshot: str, arguments: Sequence[str], *, mode: str | None = None, fallback: bool = True, quiet: bool = False
) -> None:
    """
    Become the program, if it is there and wanted; otherwise return.

    Args:
        snapshot: The snapshot's directory.
        arguments: Those of its program.
        mode: How the restore is allowed; None decides.
        fallback: Whether the program may be started conventionally.
        quiet: Whether nothing is said about that.
    """
    path = find()
    if path is None or os.environ.get(VARIABLE) == "python":
        return
    options = [] if fallback else ["--no-fallback"]
    if quiet:
        options.append("--quiet")
    if mode is not None:
        options += ["--mode", mode]
    _restore_signals()
    os.execv(path, [path, *options, "--", snapshot, "--", *arguments])


def _restore_signals() -> None:
    """Restore the signals that Python ignores for itself, and that what is started would inherit."""
    import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
