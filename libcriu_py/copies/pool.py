"""A pool of copies that are restored ahead of time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections import deque
from typing import TYPE_CHECKING

from libcriu_py.copies.aio import AsyncRestoredProcess
from libcriu_py.copies.restore import PIPE, restore
from libcriu_py.errors import CriuError
from libcriu_py.snapshot.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Self, Unpack

    from libcriu_py.copies.process import RestoredProcess
    from libcriu_py.settings import Argument, RestoreSettings


class RestorePool:
    """
    Copies of a snapshot that are restored ahead of time and wait for work.

        async with RestorePool("snap", size=4) as pool:
            process = await pool.take()
            output, _ = await process.communicate(b"work")

    A copy is ready once its after-hooks have run. It has its arguments already, and gets its work through its stdin or
    another descriptor. The pool replaces each taken copy in the background. Taken copies belong to the caller; closing
    the pool kills the others.

    Thread safety: as for asyncio, one event loop.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | Snapshot,  # noqa: A002
        argv: Sequence[Argument] = (),
        *,
        size: int = 2,
        at_once: int | None = None,
        **settings: Unpack[RestoreSettings],
    ) -> None:
        """
        Describe the pool; entering it fills it.

        Args:
            dir: The snapshot, or its directory.
            argv: Arguments of each copy.
            size: How many copies wait.
            at_once: How many restores run at a time; None means one per processor.
            settings: The other arguments of `restore`; stdin and stdout default to pipes.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            message = f"a pool of {size} copies has none to hand out; size must be at least 1"
            raise ValueError(message)
        self._snapshot = dir
        self._size = size
        self._limit = asyncio.Semaphore(at_once or os.cpu_count() or 1)
        defaults: RestoreSettings = {"stdin": PIPE, "stdout": PIPE, "die_with_caller": True}
        chosen: RestoreSettings = {**defaults, **settings, "wait_ready": True}
        self._restore: Callable[[str | os.PathLike[str] | Snapshot], RestoredProcess]
        self._restore = functools.partial(restore, argv=argv, **chosen)
        self._waiting: deque[asyncio.Task[AsyncRestoredProcess]] = deque()
        self._open = False

    def __repr__(self) -> str:
        """Return how many copies are ready."""
        ready = sum(task.done() for task in self._waiting)
        return f"<RestorePool of {self._snapshot}, {ready} of {self._size} ready>"

    async def __aenter__(self) -> Self:
        """Begin to fill the pool."""
        if not isinstance(self._snapshot, Snapshot):
            self._snapshot = await asyncio.to_thread(Snapshot.open, self._snapshot)
        self._open = True
        for _ in range(self._size):
            self._add()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill the copies that nobody has taken, and wait for them to end."""
        self._open = False
        while self._waiting:
            task = self._waiting.popleft()
            with contextlib.suppress(CriuError, OSError):  # a copy that could not be restored need not be ended
                async with await task as process:
                    process.kill()

    def _add(self) -> None:
        self._waiting.append(asyncio.create_task(self._make()))

    async def _make(self) -> AsyncRestoredProcess:
        async with self._limit:
            return AsyncRestoredProcess(await asyncio.to_thread(self._restore, self._snapshot))

    async def take(self) -> AsyncRestoredProcess:
        """
        Hand out a ready copy; wait for one if none is ready.

        Returns:
            The copy, which now belongs to the caller.

        Raises:
            CriuError: Its restore failed, as for `restore`.
            RuntimeError: The pool is not open.
        """
        while self._open:
            task = next((task for task in self._waiting if task.done()), self._waiting[0])
            await asyncio.wait({task})  # a cancelled taker leaves the copy in the pool
            if task not in self._waiting:
                continue  # another taker was faster
            self._waiting.remove(task)
            self._add()
            process = task.result()
            if process.returncode is None:
                return process
            async with process:  # it ended while it waited
                continue
        message = "the pool is closed; use it within `async with`"
        raise RuntimeError(message)
