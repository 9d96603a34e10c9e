"""Copies of a snapshot that are ready ahead of time."""

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
    Copies of a snapshot that have been restored ahead of time and wait for their work.

        async with RestorePool("snap", size=4) as pool:
            process = await pool.take()
            output, _ = await process.communicate(b"work")

    A child is ready when its after-hooks are through; it has its arguments, and gets its work through
    its stdin or whatever else it was given. Each child that is taken is replaced in the background. Those
    taken belong to the caller; those not taken are killed when the pool is closed.

    Thread safety: that of asyncio, one event loop.
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
            argv: Arguments of each child.
            size: How many children wait.
            at_once: How many restores are under way at a time; None means as many as there are processors.
            settings: The other arguments of `restore`; stdin and stdout are pipes if they are not named.

        Raises:
            ValueError: `size` is below 1.
        """
        if size < 1:
            message = f"a pool of {size} children has none to hand out; size must be at least 1"
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
        """Return how many children are ready."""
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
        """Kill the children that nobody has taken, and wait for their ends."""
        self._open = False
        while self._waiting:
            task = self._waiting.popleft()
            with contextlib.suppress(CriuError, OSError):  # one that could not be restored need not be ended
                async with await task as process:
                    process.kill()

    def _add(self) -> None:
        self._waiting.append(asyncio.create_task(self._make()))

    async def _make(self) -> AsyncRestoredProcess:
        async with self._limit:
            return AsyncRestoredProcess(await asyncio.to_thread(self._restore, self._snapshot))

    async def take(self) -> AsyncRestoredProcess:
        """
        Hand out a ready child, waiting for one where none is.

        Returns:
            The child, now the caller's.

        Raises:
            CriuError: Its restore failed, as `restore` does.
            RuntimeError: The pool is not open.
        """
        while self._open:
            task = next((task for task in self._waiting if task.done()), self._waiting[0])
            await asyncio.wait({task})  # a cancelled taker leaves the child in the pool
            if task not in self._waiting:
                continue  # another taker was faster
            self._waiting.remove(task)
            self._add()
            process = task.result()
            if process.returncode is None:
                return process
            async with process:  # it has ended while it waited
                continue
        message = "the pool is closed; use it within `async with`"
        raise RuntimeError(message)
