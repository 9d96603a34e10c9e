"""
Standby pools: copies that are restored ahead of time, for the next programs that `run` starts.

    launcher ── its surroundings ──► pool      a launcher that differs from the pool restores as always
    launcher ◄── channel, hand-over socket, pidfd ── pool
    launcher ── request, streams ──► copy      the hand-over of any restore
    launcher ◄── stops, end ── supervisor of the copy

For each copy, the pool holds the same descriptors as a launcher after a restore, and hands those over. So a copy in use
does not need the pool, and an idle one ends with it: its supervisor kills it once nobody holds the channel.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from libcriu_py.copies.standby.listener import DIFFERENCES, PoolStatus
from libcriu_py.copies.standby.service import Service
from libcriu_py.copies.standby.stock import MEBIBYTE, Bounds
from libcriu_py.snapshot.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from typing_extensions import Self

    from libcriu_py.privilege.mode import Privilege


class StandbyPool:
    """
    Copies that wait for launchers.

        with StandbyPool("snap", size=4) as pool:
            pool.wait_ready()
            ...                      # libcriu-py run snap -- args: takes a waiting copy

    It serves launchers of the same user with the same surroundings as this process: namespaces, control group, limits.
    All others restore as always. Copies in use belong to their launchers; waiting ones end with the pool.

    Thread safety: any method may be called from any thread, and `stop` from a signal handler.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | Snapshot,  # noqa: A002 - its name throughout this package
        *,
        size: int = 2,
        max_memory: float | None = None,
        idle_timeout: float | None = None,
        mode: Privilege | str | None = None,
        allow: Collection[str] = (),
        report: Callable[[str], None] | None = None,
    ) -> None:
        """
        Describe the pool; entering it, or `serve`, fills it.

        Args:
            dir: The snapshot, or its directory; if another snapshot replaces it, the pool serves that.
            size: How many copies wait.
            max_memory: MiB that the waiting copies may take together (proportional set size); None for no limit.
            idle_timeout: Seconds without a request after which the waiting copies end until the next; None for never.
            mode: Privilege mode; None picks the first that works.
            allow: Differences that launchers may have: "cgroup" (the copy stays in the pool's control group),
                "terminal" (the launcher has a controlling terminal and the copy none, but no stream is a terminal).
            report: Called with one sentence for each problem while the pool serves, in the serving thread.

        Raises:
            ValueError: `size` is below 1, or `allow` has an unknown name.
        """
        if size < 1:
            message = f"a pool of {size} copies has none to hand out; size must be at least 1"
            raise ValueError(message)
        unknown = set(allow) - set(DIFFERENCES)
        if unknown:
            message = f"allow may name {' and '.join(DIFFERENCES)}, not {', '.join(sorted(unknown))}"
            raise ValueError(message)
        self._path = dir.path if isinstance(dir, Snapshot) else os.fspath(dir)
        self._bounds = Bounds(size, None if max_memory is None else int(max_memory * MEBIBYTE), idle_timeout)
        self._mode = mode
        self._allow = frozenset(allow)
        self._report = report or (lambda _: None)
        self._news = threading.Condition()
        self._status = PoolStatus()
        self._error: BaseException | None = None
        self._service: Service | None = None
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        """Return how many copies wait."""
        return f"<StandbyPool of {self._path}, {self.waiting} of {self._bounds.size} waiting>"

    @property
    def waiting(self) -> int:
        """How many copies wait."""
        return self._status.waiting

    @property
    def served(self) -> int:
        """How many copies launchers have taken."""
        return self._status.served

    # ---- start and end -----------------------------------------------------

    def __enter__(self) -> Self:
        """
        Listen, and begin to fill the pool, in a thread.

        Raises:
            CriuError: The snapshot cannot be used here, or already has a pool.
        """
        self._open()
        self._thread = threading.Thread(target=self._serve, name="libcriu_py-pool")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the waiting copies, and wait until they have ended."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def serve(self) -> None:
        """
        Serve in this thread until `stop` is called.

        Raises:
            CriuError: The snapshot cannot be used here, already has a pool, or no copy could be restored.
        """
        self._open()
        self._serve()
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """
        Wait until the pool has ended.

        Raises:
            CriuError: No copy could be restored.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End the pool; a second call does nothing."""
        service = self._service
        if service is not None:
            service.stop()

    def _open(self) -> None:
        if self._service is not None:
            message = "the pool is open already"
            raise RuntimeError(message)
        self._error = None
        self._service = Service(
            self._path,
            self._bounds,
            mode=self._mode,
            allow=self._allow,
            report=self._report,
            on_change=self._note,
        )

    def _serve(self) -> None:
        service = self._service
        if service is None:
            return
        error: BaseException | None = None
        try:
            service.run()
        except BaseException as failure:  # noqa: BLE001 - wait() raises it in the caller's thread
            error = failure
        with self._news:
            self._service = None
            self._error = error
            self._news.notify_all()

    # ---- status ------------------------------------------------------------

    def _note(self, status: PoolStatus) -> None:
        if status != self._status:
            with self._news:
                self._status = status
                self._news.notify_all()

    def wait_ready(self, timeout: float | None = None) -> None:
        """
        Wait until the pool is full.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            CriuError: No copy could be restored.
            TimeoutError: The pool was not full in time.
            RuntimeError: The pool is not open.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._status.complete or self._service is None, timeout):
                message = f"after {timeout} seconds {self.waiting} of {self._bounds.size} copies wait"
                raise TimeoutError(message)
            if self._error is not None:
                raise self._error
            if self._service is None:
                message = "the pool is not open; use it within `with`"
                raise RuntimeError(message)
