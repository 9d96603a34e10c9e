"""Checks of pools with warm workers, each for a process of its own. Workers import this."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from importlib import import_module
from multiprocessing import shared_memory
from typing import TYPE_CHECKING, Any

import libcriu_py

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS = 1000
WORKERS = 4
WARM = [*sys.modules]
"""What was there before this was imported: what was preloaded, in a worker that is a copy."""
_state: dict[str, Any] = {}


def task(number: int) -> tuple[int, bool, int]:
    """Use pandas; return the result, whether it was there already, and which worker this is."""
    import pandas as pd

    return int(pd.Series(range(number)).sum()), "pandas" in WARM, os.getpid()


def begin(value: object) -> None:
    """Initialise a worker."""
    _state["value"] = value


def begun(_: object) -> object:
    """Return what the worker was initialised with."""
    return _state["value"]


def die(number: int) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), number)


def add(name: str, place: int) -> None:
    """Add one to a number in shared memory that no other worker writes."""
    import numpy as np

    memory: Any = shared_memory.SharedMemory(name)
    array: Any = np.ndarray(TASKS, dtype="int64", buffer=memory.buf)
    array[place] += place
    del array
    memory.close()


def share(things: object) -> None:
    """Keep what only an initialiser can be given."""
    _state["things"] = things


def enter(_: object) -> int:
    """Return how many workers are where a semaphore lets two in."""
    semaphore, lock, name = _state["things"]
    memory: Any = shared_memory.SharedMemory(name)
    with semaphore:
        with lock:
            memory.buf[0] += 1
            now = int(memory.buf[0])
        time.sleep(0.002)  # others come, if they can
        with lock:
            memory.buf[0] -= 1
    memory.close()
    return now


def expect_all(found: list[tuple[int, bool, int]]) -> None:
    """Have all tasks be done, by workers that are copies."""
    assert sorted(result for result, _, _ in found) == [sum(range(number)) for number in range(TASKS)]
    assert all(warm for _, warm, _ in found)


@contextmanager
def shared(size: int) -> Iterator[Any]:
    """Share memory with workers."""
    memory: Any = shared_memory.SharedMemory(create=True, size=size)
    try:
        memory.buf[:] = bytes(len(memory.buf))
        yield memory
    finally:
        memory.close()
        memory.unlink()


def numbers(memory: Any) -> list[int]:
    """Return the numbers in shared memory."""
    return memoryview(bytes(memory.buf)[: 8 * TASKS]).cast("q").tolist()


def warm_tasks(warm: Any) -> None:
    """Do 1,000 tasks."""
    with ProcessPoolExecutor(WORKERS, mp_context=warm, initializer=begin, initargs=("x",)) as pool:
        expect_all([future.result() for future in as_completed([pool.submit(task, n) for n in range(TASKS)])])
        assert set(pool.map(begun, range(99))) == {"x"}


def warm_pool(warm: Any) -> None:
    """Do 1,000 tasks by workers that end after 50 each."""
    with warm.Pool(WORKERS, begin, ("y",), maxtasksperchild=50) as pool:
        found = pool.map(task, range(TASKS), 1)
        assert set(pool.map(begun, range(99), 1)) == {"y"}
    expect_all(found)
    assert len({worker for _, _, worker in found}) >= TASKS // 50


def warm_executor_renews(warm: Any) -> None:
    """Have workers of an executor end after some tasks."""
    if sys.version_info < (3, 11):
        return
    with ProcessPoolExecutor(1, mp_context=warm, max_tasks_per_child=5) as pool:
        # One at a time: Python 3.11 may wait for ever where calls are left when a worker ends (gh-115634).
        assert len({pool.submit(task, 1).result()[2] for _ in range(20)}) == 4


def warm_crashes(warm: Any) -> None:
    """Have workers die in the midst of tasks: the executor says so, and the next one works."""
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
        with ProcessPoolExecutor(WORKERS, mp_context=warm) as pool:
            futures: list[Any] = [pool.submit(task, n) for n in range(50)]
            futures.insert(25, pool.submit(die, number))
            errors = {type(future.exception()) for future in futures}
        assert errors <= {BrokenProcessPool, type(None)}
        assert BrokenProcessPool in errors
    warm_tasks(warm)


def warm_memory(warm: Any) -> None:
    """Share memory and a semaphore."""
    with shared(8 * TASKS) as memory, ProcessPoolExecutor(WORKERS, mp_context=warm) as pool:
        list(pool.map(add, [memory.name] * TASKS, range(TASKS), chunksize=10))
        assert numbers(memory) == [*range(TASKS)]
    with shared(1) as memory:
        things = (warm.BoundedSemaphore(2), warm.Lock(), memory.name)
        with ProcessPoolExecutor(WORKERS, mp_context=warm, initializer=share, initargs=(things,)) as pool:
            assert max(pool.map(enter, range(200))) == 2


def loky_tasks(loky: Any) -> None:
    """Do 1,000 tasks, also with an initialiser."""
    with loky.ProcessPoolExecutor(WORKERS, initializer=begin, initargs=("x",)) as pool:
        expect_all([future.result() for future in as_completed([pool.submit(task, n) for n in range(TASKS)])])
        assert set(pool.map(begun, range(99))) == {"x"}


def loky_crashes(loky: Any) -> None:
    """Have workers die: the reusable executor says so, and is a new one the next time."""
    for number in (signal.SIGKILL, signal.SIGTERM):  # loky has its workers show where they crash
        pool = loky.get_reusable_executor(max_workers=2)
        error = pool.submit(die, number).exception()
        assert isinstance(error, loky.process_executor.TerminatedWorkerError)
        assert loky.get_reusable_executor(max_workers=2).submit(task, 3).result()[:2] == (3, True)


def loky_memory(loky: Any) -> None:
    """Share memory and a semaphore."""
    with shared(8 * TASKS) as memory, loky.ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(add, [memory.name] * TASKS, range(TASKS), chunksize=10))
        assert numbers(memory) == [*range(TASKS)]
    context = loky.backend.get_context("loky")
    with shared(1) as memory:
        things = (context.BoundedSemaphore(2), context.Lock(), memory.name)
        with loky.ProcessPoolExecutor(WORKERS, initializer=share, initargs=(things,)) as pool:
            assert max(pool.map(enter, range(200))) == 2


def total(array: Any) -> tuple[float, str, bool]:
    """Return the sum of an array, its class, and whether there is just one thread for it."""
    pools = import_module("threadpoolctl").threadpool_info()
    return float(array.sum()), type(array).__name__, all(pool["num_threads"] == 1 for pool in pools)


def joblib_tasks(joblib: Any) -> None:
    """Do 1,000 tasks, and have large arrays mapped and one thread in each worker, as joblib promises."""
    import numpy as np

    with joblib.Parallel(WORKERS) as parallel:
        expect_all(parallel(joblib.delayed(task)(n) for n in range(TASKS)))
        array = np.ones(1_000_000)
        assert set(parallel(joblib.delayed(total)(array) for _ in range(8))) == {(1e6, "memmap", True)}


def joblib_crashes(joblib: Any) -> None:
    """Have a worker die: the call says so, and the next one works."""
    errors = import_module("joblib.externals.loky.process_executor")
    try:
        joblib.Parallel(2)(joblib.delayed(die)(signal.SIGKILL) for _ in range(2))
    except errors.TerminatedWorkerError:
        expect_all(joblib.Parallel(2)(joblib.delayed(task)(n) for n in range(TASKS)))
    else:
        sys.exit("nobody said that the worker had died")


def main(name: str) -> None:
    """Run a check with what it is for."""
    kind = name.partition("_")[0]
    if kind == "warm":
        globals()[name](libcriu_py.warm_context(["pandas"]))
        return
    sys.executable = libcriu_py.executable([kind, "pandas"])
    globals()[name](import_module(kind))


CHECKS = [name for name in globals() if name.startswith(("warm_", "loky_", "joblib_"))]
