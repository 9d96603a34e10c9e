"""A program whose workers are copies: each check by its name. Workers run it again, as multiprocessing has it."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import shared_memory
from typing import TYPE_CHECKING, Any

import pytest

import libcriu_py

if TYPE_CHECKING:
    from libcriu_py.copies.workers import WarmContext

_state: dict[str, Any] = {}


def is_copy(*_: object) -> bool:
    """Return whether this process has what was preloaded, and nobody has imported."""
    return "colorsys" in sys.modules


def pid(*_: object) -> int:
    """Return the id of this process."""
    return os.getpid()


def begin(value: object) -> None:
    """Initialise a worker."""
    _state["value"] = value


def begun(*_: object) -> object:
    """Return what the worker was initialised with."""
    return _state["value"]


def die(number: int) -> None:
    """End the worker by a signal."""
    os.kill(os.getpid(), number or signal.SIGKILL)


def fail() -> None:
    """Raise an exception."""
    message = "of a worker"
    raise ValueError(message)


def exchange(inbox: Any, outbox: Any, lock: Any, number: Any) -> None:
    """Take from a queue, put into another, and count under a lock."""
    while (item := inbox.get()) is not None:
        with lock:
            number.value += item
        outbox.put((item, is_copy()))
    sys.exit(7)


def release(semaphore: Any) -> None:
    """Release a semaphore."""
    semaphore.release()


def write(memory: Any) -> None:
    """Write to shared memory."""
    memory.buf[:4] = b"warm"
    memory.close()


def check_executor(warm: WarmContext) -> None:
    """Use an executor, whose workers are copies and initialised."""
    with ProcessPoolExecutor(3, mp_context=warm, initializer=begin, initargs=("x",)) as pool:
        assert list(pool.map(is_copy, range(9))) == [True] * 9
        assert list(pool.map(begun, range(9))) == ["x"] * 9
        assert os.getpid() not in set(pool.map(pid, range(9)))
        with pytest.raises(ValueError, match="of a worker"):
            pool.submit(fail).result()
        assert pool.submit(is_copy).result()


def check_workers_that_end_after_some_calls(warm: WarmContext) -> None:
    """Have new copies take the place of workers that end after some calls."""
    with ProcessPoolExecutor(1, mp_context=warm, max_tasks_per_child=2) as pool:
        # One at a time: Python 3.11 may wait for ever where calls are left when a worker ends (gh-115634).
        assert len({pool.submit(pid).result() for _ in range(6)}) == 3
        assert pool.submit(is_copy).result()


def check_worker_that_dies(warm: WarmContext) -> None:
    """Have workers die, of which the executor is told; another one works."""
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
        with ProcessPoolExecutor(2, mp_context=warm) as pool, pytest.raises(BrokenProcessPool):
            pool.submit(die, number).result()
        process = warm.Process(target=die, args=(number,))
        assert process.name.startswith("SpawnProcess-")  # logs have it
        process.start()
        process.join()
        assert process.exitcode == -number
    with ProcessPoolExecutor(2, mp_context=warm) as pool:
        assert pool.submit(is_copy).result()


def check_pool(warm: WarmContext) -> None:
    """Use a multiprocessing.Pool, whose workers are copies too."""
    with warm.Pool(2, begin, ("y",), maxtasksperchild=1) as pool:
        assert pool.map(is_copy, range(6), 1) == [True] * 6
        assert pool.map(begun, range(4)) == ["y"] * 4
        assert len(set(pool.map(pid, range(6), 1))) == 6
        with pytest.raises(ValueError, match="of a worker"):
            pool.apply(fail)


def check_queues_locks_and_values(warm: WarmContext) -> None:
    """Share queues, locks and values, and find the exit status."""
    inbox: Any = warm.Queue()
    outbox: Any = warm.SimpleQueue()
    number = warm.Value("i", 0)
    lock = warm.Lock()
    processes = [warm.Process(target=exchange, args=(inbox, outbox, lock, number)) for _ in range(2)]
    for process in processes:
        process.start()
    for item in (1, 2, 3, 4, None, None):
        inbox.put(item)
    assert sorted(outbox.get() for _ in range(4)) == [(item, True) for item in (1, 2, 3, 4)]
    for process in processes:
        process.join()
    assert ([process.exitcode for process in processes], number.value) == ([7, 7], 10)
    semaphore = warm.Semaphore(0)
    process = warm.Process(target=release, args=(semaphore,))
    process.start()
    assert semaphore.acquire(timeout=60)
    process.join()
    assert process.exitcode == 0


def check_shared_memory(warm: WarmContext) -> None:
    """Share memory with a worker; nobody warns of it at the end."""
    memory: Any = shared_memory.SharedMemory(create=True, size=64)
    try:
        process = warm.Process(target=write, args=(memory,))
        process.start()
        process.join()
        assert (process.exitcode, bytes(memory.buf[:4])) == (0, b"warm")
    finally:
        memory.close()
        memory.unlink()


def check_manager_and_pipe(warm: WarmContext) -> None:
    """Use a manager, whose server is a copy, and a pipe."""
    with warm.Manager() as manager:
        shared = manager.dict()
        process = warm.Process(target=shared.update, args=({"a": 1},))
        process.start()
        process.join()
        assert dict(shared) == {"a": 1}
    ours, theirs = warm.Pipe()
    process = warm.Process(target=theirs.send, args=("hello",))
    process.start()
    assert ours.recv() == "hello"
    process.join()


def check_only_its_own_processes(warm: WarmContext) -> None:
    """Start what other contexts have always started."""
    with ProcessPoolExecutor(1, mp_context=warm) as pool:
        assert pool.submit(is_copy).result()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert not pool.submit(is_copy).result()


def check_futures_as_completed(warm: WarmContext) -> None:
    """Await many calls; each comes back once."""
    with ProcessPoolExecutor(4, mp_context=warm) as pool:
        futures = [pool.submit(divmod, number, 7) for number in range(200)]
        found = {future.result() for future in concurrent.futures.as_completed(futures)}
    assert found == {divmod(number, 7) for number in range(200)}


CHECKS = [name for name in globals() if name.startswith("check_")]
if sys.version_info < (3, 11):  # which has no max_tasks_per_child
    CHECKS.remove("check_workers_that_end_after_some_calls")

if __name__ == "__main__":
    globals()[sys.argv[1]](libcriu_py.warm_context(["colorsys"]))
