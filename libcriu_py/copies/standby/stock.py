"""The waiting copies of a standby pool, and how many there should be."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from libcriu_py.copies.standby.copy import WaitingCopy, restore_copy
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.snapshot.manifest import Snapshot

MEBIBYTE = 1 << 20
_REST = 0.02
"""Seconds until a taken copy is replaced: its program gets the processor first."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
"""Seconds from a failed restore to the next attempt, doubled each time."""


class Bounds:
    """How many copies may wait, and how much memory they may take."""

    def __init__(self, size: int, memory: int | None, idle: float | None) -> None:
        """
        Set the bounds.

        Args:
            size: How many copies may wait.
            memory: Bytes that they may take together; None for no limit.
            idle: Seconds without a request after which none waits; None for never.
        """
        self.size = size
        self.memory = memory
        self.idle = idle


class Stock:
    """
    Waiting copies.

    Thread safety: all methods are for one thread; restores run in another, which calls `on_restored`.
    """

    def __init__(self, bounds: Bounds, on_restored: Callable[[], None]) -> None:
        """
        Start empty.

        Args:
            bounds: How many copies may wait.
            on_restored: Called in another thread when a restore has ended.
        """
        self.copies: list[WaitingCopy] = []
        self.error: CriuError | OSError | None = None
        """Why the last restore failed."""
        self._bounds = bounds
        self._on_restored = on_restored
        self._thread = ThreadPoolExecutor(1, "libcriu_py-standby")
        self._restoring: Future[WaitingCopy] | None = None
        self._not_before = 0.0
        self._wait = _FIRST_WAIT
        self._asked = time.monotonic()
        self._typical = 0

    @property
    def is_complete(self) -> bool:
        """Whether as many copies wait as the bounds allow."""
        return self._restoring is None and not self._is_short()

    # ---- in ----------------------------------------------------------------

    def fill(self, snapshot: Snapshot, mode: Privilege) -> float | None:
        """
        Begin to restore a copy, if one is missing and no pause is left.

        Returns:
            Seconds of the pause that are left; None if no copy is missing, or `on_restored` will be called.
        """
        if self._restoring is not None or not self._is_short():
            return None
        left = self._not_before - time.monotonic()
        if left > 0:
            return left
        self._restoring = self._thread.submit(restore_copy, snapshot, mode)
        self._restoring.add_done_callback(lambda _: self._on_restored())
        return None

    def take_restored(self) -> WaitingCopy | None:
        """Add the copy whose restore has ended to the stock, and return it; None if there is none."""
        if self._restoring is None or not self._restoring.done():
            return None
        restoring, self._restoring = self._restoring, None
        try:
            copy = restoring.result()
        except (CriuError, OSError) as error:
            self.error = error
            self._not_before = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
            return None
        self.error = None
        self._wait = _FIRST_WAIT
        self.copies.append(copy)
        return copy

    def _is_short(self) -> bool:
        if len(self.copies) >= self._bounds.size or self._is_idle():
            return False
        if self._bounds.memory is None:
            return True
        # Assume that one more takes as much as the largest.
        return (len(self.copies) + 1) * self._typical <= self._bounds.memory

    def _is_idle(self) -> bool:
        return self._bounds.idle is not None and time.monotonic() - self._asked >= self._bounds.idle

    # ---- out ---------------------------------------------------------------

    def take(self) -> WaitingCopy | None:
        """Remove the copy that has waited longest, for a launcher; return None if there is none."""
        self._asked = time.monotonic()
        copy = next((copy for copy in self.copies if copy.is_waiting), None)
        if copy is not None:
            self.copies.remove(copy)
            if self._not_before <= self._asked:
                self._not_before = self._asked + _REST
        return copy

    def remove(self, copy: WaitingCopy) -> None:
        """End a copy."""
        self.copies.remove(copy)
        copy.close()
        # Copies that end by themselves must not be replaced without a pause.
        self._not_before = max(self._not_before, time.monotonic() + _REST)

    def trim(self) -> list[WaitingCopy]:
        """Return the copies that exceed the bounds by now."""
        if self._is_idle():
            return list(self.copies)
        if self._bounds.memory is None or not self.copies:
            return []
        sizes = [copy.memory() for copy in self.copies]
        self._typical = max(sizes)
        kept = len(sizes)
        while sum(sizes[:kept]) > self._bounds.memory:
            kept -= 1
        return self.copies[kept:]

    @property
    def excess(self) -> str | None:
        """A message that not one copy fits into the bounds; None if one does."""
        if self._bounds.memory is None or self._typical <= self._bounds.memory:
            return None
        return (
            f"no copy waits: one takes {self._typical / MEBIBYTE:.1f} MiB, and all together may take only "
            f"{self._bounds.memory / MEBIBYTE:.1f} MiB"
        )

    def close(self) -> None:
        """End all copies, and the one that is being restored."""
        self._thread.shutdown()
        self.take_restored()
        copies, self.copies = self.copies, []
        for copy in copies:
            copy.close()
        for copy in copies:
            copy.launcher.reap()
