"""
Copies of a snapshot that are restored ahead of time, and become the next programs that `run` starts.

    launcher ── what it is ──► pool            who differs from the pool restores as always
    launcher ◄── channel, socket of the request, pidfd ── pool
    launcher ── request, streams ──► copy      the hand-over of any restore
    launcher ◄── stops, end ── supervisor of the copy

The pool holds for each copy what a launcher holds after its restore, and gives just that away. So a copy in use
needs no pool, and an idle one ends with it: its supervisor kills it when nobody holds the channel any more.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from libcriu_py.copies.standby.listener import DIFFERENCES
from libcriu_py.copies.standby.service import PoolStatus, Service
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
            ...                      # libcriu-py run snap -- args: takes a copy that waits

    It serves launchers of this user that are as this process is, in its namespaces, control group and limits; all
    others restore as always. Copies in use belong to their launchers; those that wait end with the pool.

    Thread safety: any method may be called from any thread, and `stop` from a signal's handler.
    """

    def __init__(
        self,
        dir: str | os.PathLike[str] | Snapshot,  # noqa: A002 - the name it has everywhere here
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
            dir: The snapshot, or its directory; one that is replaced is followed.
            size: How many copies wait.
            max_memory: MiB that the waiting copies may take together (proportional set size); None for any.
            idle_timeout: Seconds without a request after which no copy waits until the next; None for ever.
            mode: How restores are allowed; None decides.
            allow: In what launchers may differ: "cgroup" (the copy stays in the pool's control group), "terminal" (they
                have a controlling terminal, which the copy has not, but none of their streams is one).
            report: Is told what goes wrong while the pool serves, a sentence each, in the thread that serves.

        Raises:
            ValueError: An argument makes no sense.
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
        """How many copies launchers have been given."""
        return self._status.served

    # ---- its life ----------------------------------------------------------

    def __enter__(self) -> Self:
        """
        Listen, and begin to fill the pool, in a thread.

        Raises:
            CriuError: The snapshot cannot be used here, or has a pool already.
        """
        self._open()
        self._thread = threading.Thread(target=self._serve, name="libcriu_py-pool")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the copies that wait, and wait for their ends."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def serve(self) -> None:
        """
        Be the pool, until `stop` is called.

        Raises:
            CriuError: The snapshot cannot be used here, has a pool already, or not one copy could be restored.
        """
        self._open()
        self._serve()
        if self._error is not None:
            raise self._error

    def wait(self) -> None:
        """
        Wait until the pool has ended.

        Raises:
            CriuError: Not one copy could be restored.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Let the pool end; twice does no more."""
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
        except BaseException as failure:  # noqa: BLE001 - it is raised in the thread that asks
            error = failure
        with self._news:
            self._service = None
            self._error = error
            self._news.notify_all()

    # ---- news --------------------------------------------------------------

    def _note(self, status: PoolStatus) -> None:
        if status != self._status:
            with self._news:
                self._status = status
                self._news.notify_all()

    def wait_ready(self, timeout: float | None = None) -> None:
        """
        Wait until as many copies wait as the bounds allow.

        Args:
            timeout: Seconds; None waits for ever.

        Raises:
            CriuError: Not one could be restored.
            TimeoutError: The time is up.
            RuntimeError: The pool is not open.
        """
        with self._news:
            if not self._news.wait_for(lambda: self._status.complete or self._service is None, timeout):
                message = f"{self.waiting} of {self._bounds.size} copies wait after {timeout} seconds"
                raise TimeoutError(message)
            if self._error is not None:
                raise self._error
            if self._service is None:
                message = "the pool is not open; use it within `with`"
                raise RuntimeError(message)
