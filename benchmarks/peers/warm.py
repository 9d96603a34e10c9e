"""
Start processes from one that has everything imported, on command: by os.fork, or by multiprocessing's forkserver.

``warm.py fork|forkserver MODULE``: for each byte of standard input one process runs the module's ``main``, its
output on this one's standard output; when it has ended, its status is written to standard error.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def job(module: str) -> None:
    """
    Run the program in a new process of the forkserver.

    Args:
        module: Its name; already imported by the server.
    """
    importlib.import_module(module).main()


def by_forkserver(module: str) -> Callable[[], int]:
    """
    Start the server.

    Args:
        module: The program.

    Returns:
        What starts a process, waits for it, and returns its status.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])

    def start() -> int:
        process = context.Process(target=job, args=(module,))
        process.start()
        process.join()
        return process.exitcode or 0

    return start


def by_fork(module: str) -> Callable[[], int]:
    """
    Import the program here.

    Args:
        module: The program.

    Returns:
        What forks, waits for the child, and returns its status.
    """
    program = importlib.import_module(module)

    def start() -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                program.main()
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return start


def main(kind: str, module: str) -> None:
    """
    Serve until standard input ends.

    Args:
        kind: ``fork`` or ``forkserver``.
        module: The program.
    """
    start = (by_fork if kind == "fork" else by_forkserver)(module)
    print("ready", file=sys.stderr, flush=True)
    # Not by lines: what Python has read ahead, each child would have too.
    while os.read(0, 1):
        print(start(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
