"""
Functions of AWS Lambda, by its runtime interface client (`awslambdaric`).

``python -m libcriu_py.integrations.functions HANDLER`` is ``python -m awslambdaric HANDLER``. Its snapshot has the
handlers' modules and what the client imports, but not the client: that reads the address of the Runtime API, and how to
log, when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

SNAPSHOT = "lambda.snap"
"""In the working directory, where the client finds the handlers too (csrc/launcher/launcher.c has the name)."""
_CLIENT = ("awslambdaric", "runtime_client", "__main__")
_LIST = "import sys, awslambdaric.__main__, concurrent.futures.thread; print(*sys.modules, sep='\\n')"


def build(handlers: Sequence[str], *, replace: bool) -> int:
    """
    Make the snapshot of functions, for any user to read: Lambda's is not that of the image.

    Args:
        handlers: The functions, such as "app.handler"; their modules are imported.
        replace: Whether to replace a snapshot that is there.

    Returns:
        The exit status of ``libcriu-py snapshot``.

    Raises:
        ValueError: A handler names no function of a module.
    """
    modules = [_module(handler) for handler in handlers]
    done = subprocess.run([sys.executable, "-c", _LIST], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return done.returncode  # it has said why
    needed = [name for name in done.stdout.split() if name.partition(".")[0] not in _CLIENT]
    options = ["-o", SNAPSHOT, "--exit", "fast", *(["--replace"] if replace else [])]
    preload = ["--preload", ",".join(modules), "--preload", ",".join(needed)]
    command = [sys.executable, "-m", "libcriu_py", "snapshot", *options, *preload, "-m", __name__]
    status = subprocess.run(command, check=False).returncode
    for place, _, names in os.walk(SNAPSHOT) if status == 0 else ():
        os.chmod(place, 0o755)  # noqa: S103 - to be read, and not written
        for name in names:
            os.chmod(os.path.join(place, name), 0o644)
    return status


def _module(handler: str) -> str:
    """Return the module of a handler, as the client does (awslambdaric/bootstrap.py, _get_handler)."""
    module, _, function = handler.rpartition(".")
    if not module or not function:
        message = f"{handler}: a handler is MODULE.FUNCTION, such as app.handler"
        raise ValueError(message)
    return module.replace("/", ".")


if __name__ == "__main__":
    from awslambdaric.__main__ import main as serve

    serve(sys.argv)
