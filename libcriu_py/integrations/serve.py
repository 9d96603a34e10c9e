"""
A uvicorn that spawns its workers: they are copies here, and so is it.

It is the server itself: it has its options, its signals, its way to watch workers and to start others. It and they are
copies of an interpreter that has imported both it and the application; the snapshot is in the user's cache, and is made
anew where it is stale.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODULES = (
    *("uvicorn.main", "uvicorn.supervisors", "uvicorn.lifespan.on", "uvicorn.loops.auto"),
    *("uvicorn.protocols.http.auto", "uvicorn.protocols.websockets.auto"),
)
"""What uvicorn imports as it serves."""


def serve(app: str, options: Sequence[str]) -> NoReturn:
    """
    Become the server.

    Args:
        app: The application, such as "app:app", from the working directory or that of --app-dir.
        options: Of uvicorn.

    Raises:
        CheckpointError: The snapshot cannot be made, or the application not be imported.
    """
    from libcriu_py.copies.workers import warm_context

    sys.path.insert(0, os.path.abspath(_directory(options)))
    python = warm_context([*_MODULES, app.partition(":")[0], __name__]).executable
    code = f"from {__name__} import main; main()"
    os.execv(python, [python, "-c", code, python, app, *options])


def _directory(options: Sequence[str]) -> str:
    """Return where the application is, as uvicorn's options say."""
    parser = argparse.ArgumentParser("uvicorn", add_help=False, allow_abbrev=False)
    parser.add_argument("--app-dir", default=os.environ.get("UVICORN_APP_DIR", ""))
    found: str = parser.parse_known_args(options)[0].app_dir
    return found


def main() -> None:
    """Be the server, in the copy, with workers by the interpreter that is the first argument."""
    from multiprocessing import spawn

    _, python, *words = sys.argv
    spawn.set_executable(python)
    sys.argv[:] = ["uvicorn", *words]
    sys.exit(import_module("uvicorn.main").main())
