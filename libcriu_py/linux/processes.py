"""The process tree below this process, which is dumped with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, NoReturn

from libcriu_py.linux import this_process
from libcriu_py.linux.ffi import lib

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 5.0
"""Seconds to wait for a task stopped by its tracer, which may be a debugger."""


def processes() -> list[int]:
    """Return the pids of this process and all its descendants, parents first."""
    found = [os.getpid()]
    for pid in found:  # grows in the loop
        found.extend(_children(pid))
    return found


def _threads(pid: int) -> list[int]:
    """Return the thread ids of a process, including its pid."""
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
    """Return the ids of all threads of this process and its descendants, except the calling one."""
    tasks = {task for pid in processes() for task in _threads(pid)}
    return sorted(tasks - {threading.get_native_id()})


def await_release(tasks: Sequence[int]) -> None:
    """
    Wait, in a restored copy, until criu has detached from these tasks too.

    criu detaches from one after the other. If a task ends before its turn, criu considers the restore failed and kills
    what it restored (`finalize_restore_detach` in criu/cr-restore.c). So the program must not run before, and end one.
    """
    deadline = time.monotonic() + _PATIENCE
    for task in tasks:
        while _is_held(task) and time.monotonic() < deadline:
            time.sleep(0.0002)


def _is_held(task: int) -> bool:
    """Return whether a tracer has stopped a thread."""
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


def end_with_descendants(status: int = 0) -> NoReturn:
    """
    Kill all descendants and exit: they are in the image, or begin again.

    A thread, such as that of a `multiprocessing.Pool`, would replace killed children. So no other Python thread may
    run: os.kill() and os._exit() keep the GIL.
    """
    descendants = processes()[1:]
    sys.setswitchinterval(3600)
    for pid in descendants:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(status)


def stop_descendants() -> list[int]:
    """
    Stop all descendants, and wait until they are.

    Returns:
        Those that were not stopped before.
    """
    stopped = [pid for pid in processes()[1:] if _state(pid) not in b"TtZX"]
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _PATIENCE
    for pid in stopped:
        while _state(pid) not in b"TtZX" and time.monotonic() < deadline:
            time.sleep(0.0002)
    return stopped


def resume(pids: Sequence[int]) -> None:
    """Let processes go on that were stopped."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _state(pid: int) -> bytes:
    """Return the letter of a process's state; X where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            status = file.read(128)
    except (FileNotFoundError, ProcessLookupError):
        return b"X"
    return status[status.rindex(b")") + 2 :][:1]


def leave_foreign_session() -> None:
    """
    Start a new session if that of this process began outside its pid namespace.

    This is so for processes that ``nsenter`` or ``unshare --pid`` starts, and below an init that starts no session.
    criu does not dump such a process (`dump_one_task` in criu/cr-dump.c). This cannot be undone, but loses nothing: the
    old session has no id here. A terminal stays usable, but its keys send no signals any more.
    """
    if os.getsid(0) == 0:
        this_process.lead_session()


def leave_group() -> bool:
    """
    Leave the process group that this process leads, unless descendants are in it.

    criu restores a group leader outside the foreground process group of the restoring side's terminal, but has a member
    join that group (`shell_job`, prepare_pstree_ids in criu/pstree.c).

    Returns:
        Whether it left; `os.setpgid(0, 0)` undoes that.
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
