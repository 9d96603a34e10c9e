"""The tree of processes below this one, which is dumped with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from libcriu_py._ffi import lib
from libcriu_py.linux import this_process

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 5.0
"""Seconds that a task may stay stopped by its tracer, who may be a debugger."""


def processes() -> list[int]:
    """Return this process and all its descendants, parents first."""
    found = [os.getpid()]
    for pid in found:  # grows meanwhile
        found.extend(_children(pid))
    return found


def _threads(pid: int) -> list[int]:
    """Return the thread ids of a process, its own pid among them."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for thread in _threads(pid):
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                children.extend(int(child) for child in file.read().split())
        except FileNotFoundError:
            continue  # the thread has ended
    return children


def other_tasks() -> list[int]:
    """Return the ids of all threads of this process and its descendants but the calling one."""
    tasks = {task for pid in processes() for task in _threads(pid)}
    return sorted(tasks - {threading.get_native_id()})


def await_release(tasks: Sequence[int]) -> None:
    """
    Wait, in a restored copy, until criu has let go of these tasks too.

    It does so one after the other; where a task has ended before its turn, criu takes the restore for a failure and
    kills what it restored (`finalize_restore_detach` in criu/cr-restore.c). So the program must not get to end one, or
    itself.
    """
    deadline = time.monotonic() + _PATIENCE
    for task in tasks:
        while _is_held(task) and time.monotonic() < deadline:
            time.sleep(0.0002)


def _is_held(task: int) -> bool:
    """Return whether a tracer has stopped a task, a thread or a process."""
    try:
        file = os.open(f"/proc/{task}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        status = os.read(file, 128)
    except ProcessLookupError:
        return False
    finally:
        os.close(file)
    return status[status.rindex(b")") + 2 :].startswith(b"t")


def end_with_descendants() -> NoReturn:
    """
    End this process with status 0, and all its descendants, whose copies are in an image.

    A thread of ours, as that of a `multiprocessing.Pool`, would start new children in place of killed ones. So no
    other Python thread gets to run any more: os.kill() and os._exit() keep the interpreter's lock.
    """
    descendants = processes()[1:]
    sys.setswitchinterval(3600)
    for pid in descendants:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(0)


def leave_foreign_session() -> None:
    """
    Make a session of this process's own where its session began outside of its pid namespace.

    So it is for what ``nsenter`` or ``unshare --pid`` starts, and for all that an init which makes no session
    starts. criu dumps no such process (`dump_one_task` in criu/cr-dump.c). There is no way back, and nothing is lost:
    the session has no number here. Its terminal, if it has one, stays usable, without signals from its keys.
    """
    if os.getsid(0) == 0:
        this_process.lead_session()


def leave_group() -> bool:
    """
    Leave the process group that this process leads, where nobody else of its tree is in it.

    The leader of a group is restored as one, outside the foreground group of the restoring side's
    terminal; a member joins that group (`shell_job`, prepare_pstree_ids in criu/pstree.c).

    Returns:
        Whether it was left; `os.setpgid(0, 0)` is the way back.
    """
    if os.getpgrp() != os.getpid() or os.getsid(0) == os.getpid() or processes()[1:]:
        return False
    try:
        os.setpgid(0, os.getpgid(os.getppid()))
    except (PermissionError, ProcessLookupError):
        return False
    return True


def same_file(pid: int, fd: int, own: int) -> bool:
    """Return whether a descriptor of another process is the same open file as one of ours; False where it is closed."""
    return bool(lib.lcp_same_file(pid, fd, own) == 1)
