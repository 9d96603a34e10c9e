"""`restore` for asyncio."""

from __future__ import annotations

import asyncio
from typing import IO, TYPE_CHECKING, Any, overload

from libcriu_py.copies.restore import restore

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from typing_extensions import Self, Unpack

    from libcriu_py.copies.process import RestoredProcess
    from libcriu_py.settings import Argument, RestoreSettings
    from libcriu_py.snapshot.manifest import Snapshot

    SnapshotOrPath = str | os.PathLike[str] | Snapshot


class AsyncRestoredProcess:
    """
    A `RestoredProcess` for asyncio: `wait` and `communicate` are coroutines.

    Thread safety: as for asyncio, one event loop.
    """

    def __init__(self, process: RestoredProcess) -> None:
        """Wrap a process."""
        self.process = process

    def __repr__(self) -> str:
        """Return pid and state."""
        return f"<Async{repr(self.process)[1:]}"

    @property
    def pid(self) -> int:
        """Its pid."""
        return self.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit status, or minus the number of the signal that killed it; None while it runs."""
        return self.process.poll()

    @property
    def stdin(self) -> IO[Any] | None:
        """Our end of its stdin, if that is a pipe."""
        return self.process.stdin

    @property
    def stdout(self) -> IO[Any] | None:
        """Our end of its stdout, if that is a pipe."""
        return self.process.stdout

    @property
    def stderr(self) -> IO[Any] | None:
        """Our end of its stderr, if that is a pipe."""
        return self.process.stderr

    async def wait(self) -> int:
        """Wait for the process to end and return its exit status; cancelling leaves it running."""
        loop = asyncio.get_running_loop()
        while (returncode := self.process.poll()) is None:
            event = loop.create_future()
            loop.add_reader(self.process.channel, _resolve, event)
            try:
                await event
            finally:
                loop.remove_reader(self.process.channel)
        return returncode

    async def communicate(self, data: Any = None) -> tuple[Any, Any]:
        """Write to stdin, read stdout and stderr to the end, and wait for the process to end."""
        return await asyncio.to_thread(self.process.communicate, data)

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the pipes and wait for the process."""
        for pipe in (self.stdin, self.stdout, self.stderr):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        await self.wait()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@overload
async def restore_async(
    dir: SnapshotOrPath, argv: Sequence[Argument] = (), *, n: None = None, **settings: Unpack[RestoreSettings]
) -> AsyncRestoredProcess: ...


@overload
async def restore_async(
    dir: SnapshotOrPath, argv: Sequence[Argument] = (), *, n: int, **settings: Unpack[RestoreSettings]
) -> list[AsyncRestoredProcess]: ...


async def restore_async(
    dir: SnapshotOrPath,  # noqa: A002
    argv: Sequence[Argument] = (),
    *,
    n: int | None = None,
    **settings: Unpack[RestoreSettings],
) -> AsyncRestoredProcess | list[AsyncRestoredProcess]:
    """
    Restore a snapshot without blocking the event loop.

    Args:
        dir: The snapshot, or its directory.
        argv: Arguments of the program, without its name.
        n: How many copies to restore at once; None restores one and returns it by itself.
        settings: The other keyword arguments of `restore`.

    Returns:
        The process, or with `n` a list of them.

    Raises:
        CriuError: As for `restore`.
    """
    if n is None:
        return AsyncRestoredProcess(await asyncio.to_thread(lambda: restore(dir, argv, **settings)))
    processes = await asyncio.to_thread(lambda: restore(dir, argv, n=n, **settings))
    return [AsyncRestoredProcess(process) for process in processes]
