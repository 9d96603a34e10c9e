"""What of a process and its threads no copy would have, apart from memory and descriptors."""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING

from libcriu_py.native.facts import FactsError, NotEligible, NotNow

if TYPE_CHECKING:
    from libcriu_py.native.facts import Facts

_AT_SECURE = 23
_AUXV = struct.Struct("<QQ")
_TIMER = re.compile(rb"^ID: (\d+)\nsignal: .*\nnotify: \w+/(\w+)\.(\d+)\nClockID: (-?\d+)$", re.MULTILINE)
_CLOCKS = frozenset({0, 1, 2, 7, 11, -6})
"""Real time, monotonic, processor time, since boot, atomic time, and processor time as glibc writes it."""
_SIGNAL_OF_DUMP = 1 << 32
"""Signal 33, which parks threads."""


def refuse(facts: Facts) -> None:
    """
    Refuse a process that has such a thing.

    Args:
        facts: What the dump wrote down.

    Raises:
        NotEligible: It has.
        FactsError: What the dump wrote down contradicts itself.
    """
    status = facts.status
    for name in ("Uid", "Gid"):
        if len(set(status[name].split())) != 1:
            raise NotEligible("has other effective ids than real ones")
    if "shstk" in status.get("x86_Thread_features", ""):
        raise NotEligible("has shadow stacks")
    if auxiliary(facts).get(_AT_SECURE):
        raise NotEligible("was started with more rights than its caller has")
    if int(status["Threads"]) != len(facts.threads):
        raise FactsError("the number of threads is another")
    if not facts.is_forkable:
        raise NotEligible("has memory with MADV_DONTFORK, and is to go on after the dump")
    _refuse_threads(facts)
    _refuse_timers(facts)
    _refuse_pending(facts)
    _refuse_children(facts)
    _refuse_filters(facts)


def auxiliary(facts: Facts) -> dict[int, int]:
    """Return the auxiliary vector: values by AT_* number."""
    data = facts.auxv
    return dict(_AUXV.iter_unpack(data[: len(data) // _AUXV.size * _AUXV.size]))


def _refuse_threads(facts: Facts) -> None:
    names = {thread.tid: os.fsdecode(thread.name) for thread in facts.threads}
    for thread in facts.threads:
        if thread.gs:
            raise NotEligible(f"has a thread that uses the register gs ({names[thread.tid]})")
        if thread.holds_robust:
            raise NotEligible(f"has a thread that holds a robust mutex ({names[thread.tid]})")
    for address, tid, _ in facts.held:
        holder = names.get(tid, tid)
        raise NotNow(f"has a thread that holds a recursive or error-checking mutex ({holder}, at {address:x})")


def _refuse_timers(facts: Facts) -> None:
    """Refuse timers of timer_create(2) that a copy could not have."""
    threads, noted = {b"%d" % thread.tid for thread in facts.threads}, {timer.id for timer in facts.noted_timers}
    for number, kind, target, clock in _TIMER.findall(facts.timers):
        if int(number) not in noted:
            raise NotEligible(f"has more timers of timer_create(2) than are saved ({len(noted)})")
        if int(clock) not in _CLOCKS:
            raise NotEligible(f"has a timer of timer_create(2) for a clock of a thread, or another ({int(clock)})")
        if kind == b"tid" and target not in threads:
            raise NotEligible(f"has a timer of timer_create(2) for a thread that has ended ({int(target)})")
    if facts.timers.count(b"ID: ") != 2 * len(noted):  # that of a clock ends so, too
        raise FactsError("the timers cannot be understood")
    if not facts.is_timer_thread_known:
        raise NotEligible("has a timer of timer_create(2) that starts threads, whose own thread is not known")


def _refuse_pending(facts: Facts) -> None:
    pending = int(facts.status["SigPnd"], 16) | int(facts.status["ShdPnd"], 16)
    for mask in (*(thread.pending for thread in facts.threads), *(timer.pending for timer in facts.noted_timers)):
        pending |= mask
    pending &= ~_SIGNAL_OF_DUMP
    if pending:
        numbers = ", ".join(str(bit + 1) for bit in range(64) if pending >> bit & 1)
        raise NotNow(f"has a pending signal ({numbers})")


def _refuse_children(facts: Facts) -> None:
    children = set(facts.children or ())
    if facts.children is None and facts.standing == facts.original:
        for tid in os.listdir(f"/proc/{facts.standing}/task"):
            with open(f"/proc/{facts.standing}/task/{tid}/children", "rb") as file:
                children.update(map(int, file.read().split()))
    children -= {os.getppid(), facts.standing}
    if children:
        raise NotEligible(f"has a child process ({min(children)})")


def _refuse_filters(facts: Facts) -> None:
    """Refuse threads with seccomp filters of their own; those of the whole process are its caller's."""
    if facts.standing != facts.original:
        return
    found = set()
    for tid in os.listdir(f"/proc/{facts.standing}/task"):
        with open(f"/proc/{facts.standing}/task/{tid}/status", "rb") as file:
            found.add(tuple(line for line in file.read().split(b"\n") if line.startswith(b"Seccomp")))
    if len(found) > 1:
        raise NotEligible("has a thread with a seccomp filter of its own")
