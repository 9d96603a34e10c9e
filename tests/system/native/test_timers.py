"""Timers of timer_create(2): copies have them under their ids, with the time that was left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

TIMERS = """
libc = ctypes.CDLL(None, use_errno=True)
class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("notify", ctypes.c_int),
                ("function", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("rest", ctypes.c_char * 32)]
class When(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]
def create(clock=1, notify=0, number=10, value=0, function=None, thread=None):
    event = Event(value, number, notify, ctypes.cast(function, ctypes.c_void_p) if function else thread)
    timer = ctypes.c_void_p()
    if libc.timer_create(clock, ctypes.byref(event), ctypes.byref(timer)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return timer
def arm(timer, *when, flags=0):
    assert not libc.timer_settime(timer, flags, ctypes.byref(When(*when)), None)
def when(timer):
    found = When()
    assert not libc.timer_gettime(timer, ctypes.byref(found))
    return found.every, found.every_ns, found.first + (found.first_ns > 0)
def shown():
    return open("/proc/self/timers").read().replace(f".{os.getpid()}\\n", ".PID\\n")
"""
ENDED = "for number in range(9):\n    libc.timer_delete(create())\n"


def test_copy_has_timers(dump: Run) -> None:
    """A copy has them all as they were: id, clock, signal, value, interval, and the time that was left."""
    before = (
        TIMERS
        + ENDED
        + """
one, two, three = create(clock=0, value=0x1234567890), create(clock=7, notify=1), create(clock=2)
arm(one, 100, 5, 1000, 0), arm(two, 0, 0, 50, 0)
before = shown()
"""
    )
    after = "print(shown() == before, shown().count('ClockID'), when(one), when(two), when(three))"
    assert dump(before, after).copy() == "True 3 (100, 5, 1000) (0, 0, 50) (0, 0, 0)\n"


def test_timer_goes_on(dump: Run) -> None:
    """A timer sends its signal with its value, and a new one gets another id."""
    before = (
        TIMERS
        + """
signal.pthread_sigmask(signal.SIG_BLOCK, [34])
timer = create(number=34, value=77)
arm(timer, 0, 0, 2, 0)
"""
    )
    after = """
        info = signal.sigwaitinfo([34])
        print(info.si_code, create().value, shown().count("ClockID"))
        """
    assert dump(before, after).copy() == "-2 1 2\n"


def test_timer_of_a_thread(dump: Run) -> None:
    """The signal comes in the thread that it came in, whose id is another now."""
    before = (
        TIMERS
        + """
ready, go_on, found = threading.Event(), threading.Event(), []
def wait():
    signal.pthread_sigmask(signal.SIG_BLOCK, [34])
    timer.append(create(number=34, notify=4, thread=threading.get_native_id()))
    ready.set(), go_on.wait()
    found.append(signal.sigtimedwait([34], 20))
timer = []
thread = threading.Thread(target=wait)
thread.start(), ready.wait()
"""
    )
    after = "arm(timer[0], 0, 0, 0, 1); go_on.set(); thread.join(); print(found[0].si_code)"
    assert dump(before, after).copy() == "-2\n"


@pytest.mark.parametrize("then", ["exit", "continue"])
def test_timers_that_start_threads(then: str, dump: Run) -> None:
    """SIGEV_THREAD: a thread of glibc waits for these timers, those that are made in a copy too."""
    before = (
        TIMERS
        + """
calls = {n: threading.Event() for n in (1, 2, 3)}
function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda value: calls[value].set())
first, second = (create(notify=2, value=value, function=function) for value in (1, 2))
arm(first, 0, 0, 0, 1), calls[1].wait(20), calls[1].clear()
arm(second, 0, 0, 3600, 0)
"""
    )
    after = """
        print(3000 < when(second)[2] <= 3600)
        for timer, value in ((first, 1), (second, 2), (create(notify=2, value=3, function=function), 3)):
            arm(timer, 0, 0, 0, 1)
            print(calls[value].wait(20))
        """
    outcome = dump(before, after, then=then)
    assert outcome.copy() == 4 * "True\n"
    assert outcome.output == ("" if then == "exit" else outcome.copy())


@pytest.mark.parametrize(
    ("reason", "made"),
    [
        ("for a clock of a thread, or another (-2)", "create(clock=3)"),
        ("for a thread that has ended", "threads()"),
        ("has a pending signal (10)", "signal.pthread_sigmask(signal.SIG_BLOCK, [10]); arm(create(), 0, 0, 0, 1)"),
        ("has more timers of timer_create(2) than are saved (256)", "[create() for _ in range(257)]"),
    ],
)
def test_refuses_by_name(reason: str, made: str, dump: Run) -> None:
    """What a copy could not have is refused."""
    before = (
        TIMERS
        + """
def threads():
    thread = threading.Thread(target=lambda: create(notify=4, thread=threading.get_native_id()))
    thread.start(), thread.join()
"""
    )
    outcome = dump(before + made)
    assert outcome.status == 1
    assert reason in outcome.errors.splitlines()[-1]
