"""
Start processes from one that has everything imported, on command: by os.fork, or by multiprocessing's forkserver.

`warm_server.py fork|forkserver MODULE`: for each line `COUNT TOGETHER` of standard input, COUNT processes run the
module's `main`, TOGETHER at once, their output on this one's standard output. When they have ended, the first status
that is not 0, or 0, and the seconds that it took are written to standard error.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Wait = Callable[[], int]
    """Waits for a process, and returns its status."""


def job(module: str) -> None:
    """Run the program in a new process of the forkserver, which has imported it."""
    importlib.import_module(module).main()


def by_forkserver(module: str) -> Callable[[], Wait]:
    """Return what has the server start a process; the first one starts the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])

    def start() -> Wait:
        process = context.Process(target=job, args=(module,))
        process.start()

        def wait() -> int:
            process.join()
            return process.exitcode or 0

        return wait

    return start


def by_fork(module: str) -> Callable[[], Wait]:
    """Import the program here, and return what forks a process."""
    program = importlib.import_module(module)

    def start() -> Wait:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                program.main()
                status = 0
            finally:
                os._exit(status)
        return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return start


def main(kind: str, module: str) -> None:
    """Serve until standard input ends."""
    start = (by_fork if kind == "fork" else by_forkserver)(module)
    print("ready", file=sys.stderr, flush=True)
    # Not by sys.stdin: what Python has read ahead, each child would have too. The client sends no second line before
    # it has its answer.
    while line := os.read(0, 64):
        count, together = map(int, line.split())
        begin = time.monotonic()
        statuses = []
        for _ in range(0, count, together):
            statuses += [wait() for wait in [start() for _ in range(together)]]
        seconds = time.monotonic() - begin
        print(next(filter(None, statuses), 0), seconds, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
