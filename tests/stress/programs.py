"""
The programs that are restored: each prints one line, of its argument, which no other copy has.

    python -m tests.stress.programs NAME SNAPSHOT

takes the snapshot; `expected` is what a copy prints.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING

from libcriu_py import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = bytes(range(256)) * 1024


def expected(argument: str) -> str:
    """Return the line that a copy prints for an argument."""
    return f"{argument} {zlib.crc32(argument.encode())}"


def empty(path: str, engine: str) -> None:
    """Do nothing else."""
    with checkpoint(path, engine=engine, exit="fast"):  # type: ignore[arg-type]
        pass
    _report()


def pandas(path: str, engine: str) -> None:
    """Compute with a table that was made before the dump."""
    import pandas as pd

    with checkpoint(path, engine=engine, exit="fast"):  # type: ignore[arg-type]
        table = pd.DataFrame({"group": [n % 7 for n in range(10_000)], "value": range(10_000)})
        before = table.groupby("group")["value"].sum().tolist()
    if table.groupby("group")["value"].sum().tolist() != before or sum(before) != sum(range(10_000)):
        sys.exit("pandas computes something else")
    _report()


def torch(path: str, engine: str) -> None:
    """Compute with a matrix that was made before the dump, on several threads."""
    import torch

    with checkpoint(path, engine=engine, exit="fast"):  # type: ignore[arg-type]
        matrix = torch.arange(256 * 256, dtype=torch.float64).reshape(256, 256)
        before = float((matrix @ matrix).sum())
    if float((matrix @ matrix).sum()) != before:
        sys.exit("torch computes something else")
    _report()


def threads(path: str, engine: str) -> None:
    """Have five threads busy in C at the dump, each of which finds what it would have found."""
    wanted = hashlib.sha256(_BLOCK).digest()
    rounds, wrong, ending = [0] * 5, [0] * 5, threading.Event()

    def work(number: int) -> None:
        while not ending.is_set():
            wrong[number] += hashlib.sha256(_BLOCK).digest() != wanted
            rounds[number] += 1

    workers = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(5)]
    for worker in workers:
        worker.start()
    with checkpoint(path, engine=engine, exit="fast"):  # type: ignore[arg-type]
        time.sleep(0.05)
    before = list(rounds)
    deadline = time.monotonic() + 20
    while any(now == then for now, then in zip(rounds, before, strict=True)) and time.monotonic() < deadline:
        time.sleep(0.001)
    ending.set()
    for worker in workers:
        worker.join()
    if any(wrong) or any(now == then for now, then in zip(rounds, before, strict=True)):
        sys.exit(f"threads: rounds {before} and {rounds}, wrong {wrong}")
    _report()


def tasks(path: str, engine: str) -> None:
    """Have an event loop with timers, a queue and a thread pool at the dump."""
    asyncio.run(_tasks(path, engine))
    _report()


async def _tasks(path: str, engine: str) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def tick() -> None:
        number = 0
        while True:
            await asyncio.sleep(0.001)
            queue.put_nowait(number := number + 1)

    ticking = asyncio.create_task(tick())
    await asyncio.to_thread(time.sleep, 0.01)
    async with checkpoint(path, engine=engine, exit="fast"):  # type: ignore[arg-type]
        last = await queue.get()
    for _ in range(3):
        number = await asyncio.wait_for(queue.get(), 20)
        if number != last + 1:
            sys.exit(f"tasks: {number} after {last}")
        last = number
    if await asyncio.to_thread(sum, [1, 2, 3]) != 6:
        sys.exit("tasks: a thread of the pool computes something else")
    ticking.cancel()


def _report() -> None:
    print(expected(sys.argv[-1]), flush=True)


PROGRAMS: dict[str, Callable[[str, str], None]] = {
    "empty": empty,
    "pandas": pandas,
    "torch": torch,
    "threads": threads,
    "tasks": tasks,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](sys.argv[2], sys.argv[3])
