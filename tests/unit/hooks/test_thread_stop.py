"""Single-threaded hooks: other threads stop between two bytecodes, and a hook that waits for one is an error."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from libcriu_py import CheckpointError, HookError, after_restore, before_checkpoint, checkpoint, register, unregister
from libcriu_py.hooks.registry import registry
from libcriu_py.hooks.thread_stop import ThreadStop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

LIMIT = 5.0


pytestmark = pytest.mark.usefixtures("fresh_registry")


def rehearse(**settings: object) -> None:
    """Take a checkpoint without CRIU."""
    with checkpoint("unused", engine="simulate", **settings):  # type: ignore[arg-type]
        pass


class Counters:
    """Threads that count, each in a way of its own."""

    def __init__(self, number: int = 16) -> None:
        self.counts = [0] * number
        self.over = False
        kinds: list[Callable[[int], None]] = [self._loop, self._calls, self._generator, self._sleep, self._raise]
        self._threads = [threading.Thread(target=kinds[place % len(kinds)], args=(place,)) for place in range(number)]

    def __enter__(self) -> Counters:
        # Threads take turns often, so that each comes to run in a moment, and is stopped anywhere.
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        for thread in self._threads:
            thread.start()
        self.await_progress()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        for thread in self._threads:
            thread.join()
        sys.setswitchinterval(self._interval)

    def await_progress(self) -> None:
        """Wait until each has counted on."""
        before = list(self.counts)
        while any(new == old for new, old in zip(self.counts, before, strict=True)):
            time.sleep(0.001)

    def _loop(self, place: int) -> None:
        # fmt: off
        while not self.over: self.counts[place] += 1  # noqa: E701 - one line: no new line is ever reached
        # fmt: on

    def _calls(self, place: int) -> None:
        def count() -> None:
            self.counts[place] += 1

        while not self.over:
            count()

    def _generator(self, place: int) -> None:
        def ones() -> Iterator[int]:
            while not self.over:
                yield 1

        for one in ones():
            self.counts[place] += one

    def _sleep(self, place: int) -> None:
        while not self.over:
            time.sleep(0.0001)
            self.counts[place] += 1

    def _raise(self, place: int) -> None:
        def fail() -> None:
            raise ValueError

        while not self.over:
            try:
                fail()
            except ValueError:
                self.counts[place] += 1


def test_no_thread_runs_beside_a_single_threaded_hook() -> None:
    """Sixteen busy threads stand still from the first such hook to the last, though the hooks sleep, and go on then."""
    with Counters() as counters:
        seen: list[list[int]] = []

        def look() -> None:
            seen.append(list(counters.counts))
            time.sleep(0.05)
            seen.append(list(counters.counts))

        before_checkpoint(look, single_threaded=True)
        after_restore(look, single_threaded=True)
        rehearse()
        assert len(seen) == 4
        assert seen == [seen[0]] * 4
        counters.await_progress()


def test_order_around_the_dump() -> None:
    """Single-threaded hooks are nearest to the dump, in the same order as others among themselves."""
    order: list[str] = []
    for name, alone in (("1", False), ("2", True), ("3", True), ("4", False)):
        before_checkpoint(order.append, f"before {name}", single_threaded=alone)
        after_restore(order.append, f"after {name}", single_threaded=alone)
    rehearse()
    befores = ["before 4", "before 1", "before 3", "before 2"]
    assert order == [*befores, "after 2", "after 3", "after 1", "after 4"]


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
@pytest.mark.parametrize("in_main_thread", [True, False])
@pytest.mark.parametrize("phase", ["before", "after"])
def test_hook_that_waits_for_a_stopped_thread(
    make: Callable[[], threading.Lock], phase: str, *, in_main_thread: bool
) -> None:
    """It is an error that names the thread and where it stands; everybody goes on, and other hooks are undone."""
    lock, holding, leave = make(), threading.Event(), threading.Event()
    undone: list[str] = []

    def holder() -> None:
        with lock:
            holding.set()
            while not leave.is_set():
                pass  # busy, and not waiting

    def wanting() -> None:
        leave.set()
        with lock:
            pass

    hook = before_checkpoint if phase == "before" else after_restore
    hook(wanting, single_threaded=True)
    after_restore(undone.append, "undone")
    thread = threading.Thread(target=holder, name="holder-of-the-lock")
    thread.start()
    holding.wait()
    errors: list[BaseException] = []

    def take() -> None:
        try:
            rehearse(hook_limit=0.3)
        except HookError as error:
            errors.append(error)

    if in_main_thread:
        take()
    else:
        taker = threading.Thread(target=take)
        taker.start()
        taker.join()
    thread.join(LIMIT)
    assert not thread.is_alive()
    (error,) = errors
    assert "wanting failed" in str(error)
    assert re.search(rf"waiting at {__file__}:\d+ in wanting", str(error))
    assert re.search(rf"thread holder-of-the-lock at [^;]*{__file__}:\d+ in holder", str(error))
    assert undone == ["undone"]
    assert lock.acquire(timeout=LIMIT)
    registry._entries = []
    rehearse()


def test_finalizer_that_waits_for_a_stopped_thread() -> None:
    """So is it where code of the program that a dump runs by itself waits for one."""
    lock, holding, leave = threading.Lock(), threading.Event(), threading.Event()

    def holder() -> None:
        with lock:
            holding.set()
            while not leave.is_set():
                pass  # busy, and not waiting

    class Cycle:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            leave.set()
            with lock:
                pass

    before_checkpoint(Cycle, single_threaded=True)
    thread = threading.Thread(target=holder, name="holder-of-the-lock")
    thread.start()
    holding.wait()
    with pytest.raises(HookError, match=r"in __del__.*thread holder-of-the-lock at .*in holder"):
        rehearse(hook_limit=0.3)
    thread.join(LIMIT)
    assert not thread.is_alive()
    registry._entries = []
    rehearse()


def test_failed_hook_lets_threads_go_on() -> None:
    """A failure while threads are stopped is undone in it, and ends it."""
    with Counters(3) as counters:
        seen: list[list[int]] = []

        class Thing:
            def before_checkpoint(self) -> None:
                seen.append(list(counters.counts))

            def after_restore(self) -> None:
                time.sleep(0.01)
                seen.append(list(counters.counts))

        def fail() -> None:
            raise OSError

        before_checkpoint(fail, single_threaded=True)
        thing = register(Thing(), single_threaded=True)
        with pytest.raises(HookError, match="fail failed: OSError"):
            rehearse()
        assert seen == [seen[0]] * 2
        counters.await_progress()
        unregister(thing)


def test_thread_inside_a_log_handler_is_waited_for() -> None:
    """A thread is not stopped where it holds the lock of a handler: a hook may log."""
    written: list[str] = []
    writing, go_on = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "from the thread":
                writing.set()
                go_on.wait()
            written.append(record.getMessage())

    logger = logging.getLogger("libcriu_py.test_stopped")
    handler = Slow()
    logger.addHandler(handler)
    thread = threading.Thread(target=logger.warning, args=("from the thread",), name="writer")
    thread.start()
    writing.wait()
    stubborn = ThreadStop()
    with pytest.raises(CheckpointError, match=r"still hold a lock .*: thread writer at .* in wait"):
        stubborn.begin(0.05)
    timer = threading.Timer(0.1, go_on.set)
    timer.start()
    before_checkpoint(logger.warning, "from the hook", single_threaded=True)
    rehearse(hook_limit=LIMIT)
    for each in (thread, timer):
        each.join()
    logger.removeHandler(handler)
    assert written == ["from the thread", "from the hook"]


def test_trace_function_of_a_debugger_stays() -> None:
    """A thread that is traced by somebody else is traced as before when it goes on."""
    seen: list[str] = []
    ready, leave = threading.Event(), threading.Event()

    def trace(frame: FrameType, event: str, argument: object) -> object:
        seen.append(frame.f_code.co_name)
        return None

    def traced_later() -> None:
        """Be seen."""

    def work() -> None:
        sys.settrace(trace)  # type: ignore[arg-type]
        ready.set()
        leave.wait()
        traced_later()
        found.append(sys.gettrace())
        sys.settrace(None)

    found: list[object] = []
    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()
    before_checkpoint(time.sleep, 0.01, single_threaded=True)
    rehearse()
    leave.set()
    thread.join()
    assert found == [trace]
    assert "traced_later" in seen


def test_threads_of_a_hook_run() -> None:
    """A hook may start threads of its own and wait for them."""
    with Counters(2):

        def hook() -> None:
            thread = threading.Thread(target=done.append, args=(1,))
            thread.start()
            thread.join()

        done: list[int] = []
        before_checkpoint(hook, single_threaded=True)
        rehearse(hook_limit=LIMIT)
        assert done == [1]
