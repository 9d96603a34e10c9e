"""Workers of multiprocessing that are copies of an interpreter, with their modules imported already."""

from __future__ import annotations

import threading
from multiprocessing import context, popen_spawn_posix, resource_tracker, spawn
from typing import TYPE_CHECKING, Any

from libcriu_py.copies import interpreter

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRELOADED = (
    *("libcriu_py.copies.workers", "multiprocessing.spawn", "multiprocessing.pool", "multiprocessing.queues"),
    *("multiprocessing.synchronize", "multiprocessing.connection", "multiprocessing.shared_memory"),
    *("multiprocessing.managers", "concurrent.futures.process", "runpy"),
)
"""What workers import in any case."""


def warm_context(preload: Sequence[str] = ()) -> WarmContext:
    """
    Return a context of multiprocessing whose processes start with modules imported already.

        ProcessPoolExecutor(4, mp_context=warm_context(["pandas"]))

    It is the context "spawn", but for what starts a process: a copy of an interpreter that has these modules. Where no
    copy can be what a new interpreter would be, that is started. The snapshot is made, in the user's cache, if there is
    none that fits.

    Args:
        preload: The modules; they are found on this process's sys.path too.

    Returns:
        The context.

    Raises:
        CheckpointError: The snapshot cannot be made, or a module not be imported.
        CriuError: The launcher was not built.
    """
    return WarmContext(interpreter.for_workers([*_PRELOADED, *preload]))


class WarmProcess(context.SpawnProcess):
    """A process of a `WarmContext`, of which each has a class of its own."""

    executable = ""
    """What is started."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:  # noqa: N802 - as multiprocessing calls it
        """Start the process."""
        return _Popen(process_obj)

    def __reduce__(self) -> Any:
        """Have it be like others in itself, unless it is of a class of the program's."""
        if "executable" in vars(type(self)):
            return _as_spawned, (), self.__dict__
        return super().__reduce__()


def _as_spawned() -> context.SpawnProcess:
    return context.SpawnProcess.__new__(context.SpawnProcess)


class WarmContext(context.SpawnContext):
    """A context of multiprocessing whose processes are copies of an interpreter."""

    def __init__(self, executable: str) -> None:
        """
        Note what is to be started.

        Args:
            executable: The interpreter, of `libcriu_py.executable`.
        """
        super().__init__()
        self.executable = executable
        self.Process = type("SpawnProcess", (WarmProcess,), {"executable": executable})  # type: ignore[misc]


class _Popen(popen_spawn_posix.Popen):
    """How a process is started: as by "spawn", which has one interpreter for all contexts."""

    def _launch(self, process_obj: Any) -> None:
        """Start the interpreter, and send it what it is to do."""
        tracker: Any = resource_tracker
        tracker.ensure_running()  # by the usual one: it lives as long as this process
        with _lock:
            before = spawn.get_executable()
            spawn.set_executable(process_obj.executable)
            try:
                super()._launch(process_obj)  # type: ignore[misc]
            finally:
                spawn.set_executable(before)


_lock = threading.Lock()
