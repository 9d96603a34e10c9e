"""The state in which criu restores a process (images/core.proto, compel/include/uapi/task-state.h)."""

from __future__ import annotations

import os

from libcriu_py.images import framing
from libcriu_py.images.codec import Message

_TASK, _THREAD = 3, 5
_STATE, _SHARED, _PRIVATE = 1, 10, 9
_QUEUED, _SIGINFO = 1, 1
_ALIVE, _STOPPED = 1, 3
_JOB_CONTROL = range(18, 23)
"""SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU."""


def resume(images_dir: str, pid: int) -> None:
    """
    Have a process run in copies that was stopped when it was dumped, or had a SIGCONT before it.

    With such a signal pending, criu's own tracing of a restored process takes its effect for a failure.

    Args:
        images_dir: The images.
        pid: The process.

    Raises:
        ImageError: The images are damaged.
    """
    path = os.path.join(images_dir, f"core-{pid}.img")
    (core,) = framing.read(path, "core")
    before = core.encode()
    task, thread = core.message(_TASK), core.message(_THREAD)
    if task.number(_STATE, _ALIVE) == _STOPPED:
        task.set(_STATE, _ALIVE)
    _drop_job_control(task, _SHARED)
    _drop_job_control(thread, _PRIVATE)
    core.set(_TASK, task.encode())
    core.set(_THREAD, thread.encode())
    if core.encode() != before:
        os.unlink(path)
        framing.write(path, "core", [core])


def _drop_job_control(message: Message, field: int) -> None:
    """Remove signals of job control from a queue of pending ones."""
    queue = message.message(field)
    pending = queue.all_bytes(_QUEUED)
    kept = [entry for entry in pending if _number(entry) not in _JOB_CONTROL]
    if kept != pending:
        queue.replace_all(_QUEUED, kept)
        message.set(field, queue.encode())


def _number(entry: bytes) -> int:
    """Return the number of a pending signal, of which the kernel's `siginfo_t` is saved."""
    (siginfo,) = Message.parse(entry).all_bytes(_SIGINFO)
    return int.from_bytes(siginfo[:4], "little")
