"""Threads that block the signal by which a dump stops threads, as only system calls of their own can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

BEFORE = """
import select
libc = ctypes.CDLL(None)
all_signals = ctypes.c_uint64(2**64 - 1)
ready, done, found, go_on, r, w = threading.Event(), threading.Event(), [], [], *os.pipe()
def blocked():
    task = f"/proc/self/task/{{threading.get_native_id()}}/status"
    return [line.split()[1] for line in open(task) if line.startswith("SigBlk")]
def wait():
    libc.syscall(14, 0, ctypes.byref(all_signals), None, 8)
    found.extend(blocked())
    ready.set()
    {waiting}
    found.extend(blocked())
    done.set()
thread = threading.Thread(target=wait)
thread.start(), ready.wait()
while {is_waiting} not in open(f"/proc/self/task/{{thread.native_id}}/syscall").read():
    time.sleep(0.001)
"""
WAITS = {
    "a lock": ("time.sleep(0) or lock.acquire()", "'202 '"),
    "a sleep": ("time.sleep(1)", "'230 '"),
    "a read": ("os.read(r, 1)", "'0 '"),
    "a poll": ("p = select.poll(); p.register(r, select.POLLIN); p.poll(20000)", "'7 '"),
    "nothing": ("\n    while not go_on:\n        pass", "''"),
}


@pytest.mark.parametrize("then", ["exit", "continue"])
@pytest.mark.parametrize("what", WAITS)
def test_thread_that_blocks_all_signals(what: str, then: str, dump: Run) -> None:
    """It stands still for the dump, goes on in copies and the original, and blocks what it blocked."""
    waiting, number = WAITS[what]
    before = "lock = threading.Lock(); lock.acquire()" + BEFORE.format(waiting=waiting, is_waiting=number)
    after = """
        os.write(w, b"x"), lock.release(), go_on.append(1)
        print(done.wait(20), thread.join(), found)
        """
    outcome = dump(before, after, then=then)
    told = "True None ['fffffffffffbfeff', 'fffffffffffbfeff']\n"
    assert outcome.copy() == told
    assert outcome.output == ("" if then == "exit" else told)


def test_thread_that_begins_to_block_them(dump: Run) -> None:
    """A thread may begin to block all signals, and to allow them, at any moment of the dump."""
    before = """
        libc, go_on, count = ctypes.CDLL(None), [], [0]
        masks = [ctypes.c_uint64(2**64 - 1), ctypes.c_uint64(0)]
        def change():
            while not go_on:
                for mask in masks:
                    libc.syscall(14, 2, ctypes.byref(mask), None, 8)
                    count[0] += 1
        threads = [threading.Thread(target=change) for _ in range(3)]
        print(*(thread.start() for thread in threads), file=sys.stderr)
        while count[0] < 1000:
            time.sleep(0.001)
        """
    after = "go_on.append(1); print(*(thread.join(20) or thread.is_alive() for thread in threads))"
    assert dump(before, after).copy() == "False False False\n"


def test_many_of_them(dump: Run) -> None:
    """Any number of threads may do so."""
    before = """
        libc, lock, ready = ctypes.CDLL(None), threading.Lock(), threading.Barrier(9)
        all_signals = ctypes.c_uint64(2**64 - 1)
        lock.acquire()
        def wait():
            libc.syscall(14, 0, ctypes.byref(all_signals), None, 8)
            ready.wait()
            with lock:
                pass
        threads = [threading.Thread(target=wait) for _ in range(8)]
        print(*(thread.start() for thread in threads), file=sys.stderr), ready.wait()
        """
    after = "lock.release(); print(*(thread.join(20) or thread.is_alive() for thread in threads))"
    assert dump(before, after).copy() == " ".join(["False"] * 8) + "\n"
