"""
Spawn processes with multiprocessing's forkserver, on command.

``forkserver.py MODULE``: the server has the module imported, and each process
runs its ``main``. For each line ``COUNT TOGETHER`` of standard input (``TOGETHER``
processes at once, until there were ``COUNT``) the seconds it took are written to
standard error; standard output is the processes'.
"""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

ROOT = str(Path(__file__).resolve().parents[2])


def job(module: str) -> None:
    """
    Run the program in a new process.

    Args:
        module: Its name; already imported by the server.
    """
    importlib.import_module(module).main()


def spawn(context: ForkServerContext, module: str, count: int, together: int) -> None:
    """
    Spawn processes and wait for them.

    Args:
        context: Of the forkserver.
        module: The program.
        count: How many in all.
        together: How many at once.
    """
    for _ in range(0, count, together):
        processes = [context.Process(target=job, args=(module,)) for _ in range(together)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()


def main() -> None:
    """Serve until standard input ends."""
    module = sys.argv[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    spawn(context, module, 1, 1)  # the server starts with the first process
    print("ready", file=sys.stderr, flush=True)
    for line in sys.stdin:
        count, together = line.split()
        start = time.monotonic()
        spawn(context, module, int(count), int(together))
        print(time.monotonic() - start, file=sys.stderr, flush=True)


if __name__ == "__main__":
    # Here and not in the processes: the server imports by this path too.
    sys.path[0] = ROOT
    main()
