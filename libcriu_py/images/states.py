"""The state in which criu restores a process (images/core.proto, compel/include/uapi/task-state.h)."""

from __future__ import annotations

import os

from libcriu_py.images import framing

_TASK, _STATE = 3, 1
_ALIVE, _STOPPED = 1, 3


def resume(images_dir: str, pid: int) -> None:
    """
    Have a process run in copies although it was stopped when it was dumped.

    Args:
        images_dir: The images.
        pid: The process.

    Raises:
        ImageError: The images are damaged.
    """
    path = os.path.join(images_dir, f"core-{pid}.img")
    (core,) = framing.read(path, "core")
    task = core.message(_TASK)
    if task.number(_STATE, _ALIVE) != _STOPPED:
        return
    task.set(_STATE, _ALIVE)
    core.set(_TASK, task.encode())
    os.unlink(path)
    framing.write(path, "core", [core])
