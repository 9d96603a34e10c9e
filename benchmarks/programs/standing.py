"""
Dump this process with a program's modules imported, and tell when the block is left, and how long the others stand.

Usage: standing.py MODULE SNAPSHOT native|criu exit|continue

The first line of output is the time at which the block is left, in ns of CLOCK_MONOTONIC. If the process goes on, the
second has two numbers of ms: the longest pause of a thread that ticks, from then until the snapshot is there, and how
long the engine says that threads stood still.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path
from typing import Literal, cast

from libcriu_py.dump.checkpoint import checkpoint
from libcriu_py.images.readers import dump_stats
from libcriu_py.linux import native

TICK = 0.0003
"""Seconds; also those after which a thread of Python lets another one run, so that this is not what is measured."""
dumped: list[native.Dumped] = []


class Ticks(threading.Thread):
    """A thread that notes its longest pause."""

    def __init__(self) -> None:
        """Prepare."""
        super().__init__(daemon=True)
        self.over = False
        self.longest = 0
        self.begun = threading.Event()

    def run(self) -> None:
        """Tick."""
        last = time.monotonic_ns()
        while not self.over:
            time.sleep(TICK)
            now = time.monotonic_ns()
            self.longest = max(self.longest, now - last)
            last = now
            self.begun.set()


def note_dumps() -> None:
    """Have what the native engine tells of its dumps kept."""
    dump = native.dump

    def noted(*arguments: object, **more: object) -> native.Dumped:
        dumped.append(dump(*arguments, **more))  # type: ignore[arg-type]
        return dumped[-1]

    native.dump = noted


def main(module: str, snapshot: str, engine: str, then: str) -> None:
    """Import, dump, and tell."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    importlib.import_module(module)
    ticks = Ticks()
    if then == "continue":
        sys.setswitchinterval(TICK)
        note_dumps()
        ticks.start()
    chosen = cast("Literal['native', 'criu']", engine)
    with checkpoint(snapshot, engine=chosen, then=cast("Literal['exit', 'continue']", then)):
        if then == "continue":
            ticks.begun.wait()
        ticks.longest = 0
        print(time.monotonic_ns(), flush=True)
    ticks.over = True
    ticks.join()
    stood = dumped[-1].stood_ns / 1e6 if dumped else dump_stats(Path(snapshot) / "images")["frozen_time"] / 1e3
    print(ticks.longest / 1e6, stood, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
