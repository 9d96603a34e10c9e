"""
Stop all other Python threads, for single-threaded hooks and through the dump.

A thread stops at a *safe point*: between two bytecodes, unless it holds a lock there that the checkpoint itself takes.
A thread that waits in C, for a lock or for data, stops when it returns from there; native code without the GIL keeps
running. Threads started meanwhile run: they belong to the hook.

A hook that waits for a stopped thread, for its lock or its answer, would wait for ever. A guard prevents that: after a
time limit it lets all threads go on, so that the hook can finish, and then fails it with the position of each thread.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from libcriu_py.errors import CheckpointError, HookError
from libcriu_py.hooks import safepoints, stacks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import FrameType

LIMIT = 10.0
"""Seconds after which a hook counts as waiting for a stopped thread, unless `hook_limit` is set."""

_SETTLE = 0.05  # seconds; whoever is in C for longer waits there for something
_GRACE = 0.5  # seconds that a hook has to finish once all threads go on
# With these as the innermost call, an import or the bookkeeping of threads holds a process-wide lock.
_LOCKED_INSIDE = frozenset({"importlib._bootstrap", "importlib._bootstrap_external"})
_LOCKED_IN = frozenset({("threading", name) for name in ("start", "enumerate", "_bootstrap_inner", "_delete")})
# A handler holds its lock for all that it calls to write (Lib/logging, Handler.handle); so does our registry.
_LOCKED_BELOW = frozenset({"logging", "libcriu_py.hooks.registry"})


def is_safe(frame: FrameType) -> bool:
    """Return whether a thread may be stopped at a frame."""
    name = frame.f_globals.get("__name__")
    if name in _LOCKED_INSIDE or (name, frame.f_code.co_name) in _LOCKED_IN:
        return False
    return all(each.f_globals.get("__name__") not in _LOCKED_BELOW for each in safepoints.frames_of(frame))


def _unsafe(frames: Mapping[int, FrameType]) -> list[int]:
    return [ident for ident, frame in frames.items() if not is_safe(frame)]


class ThreadStop:
    """
    One stop of all other threads.

    Thread safety: the thread that takes the checkpoint begins it; that thread or its guard ends it.
    """

    def __init__(self) -> None:
        """Prepare a stop; `begin` stops the threads."""
        self._gate = _thread.allocate_lock()
        self._held: frozenset[int] = frozenset()
        self._stopped: set[int] = set()
        self._mechanism: safepoints.Mechanism | None = None

    @property
    def active(self) -> bool:
        """Whether threads are being held."""
        return bool(self._held)

    def begin(self, limit: float) -> None:
        """
        Stop all other Python threads.

        Args:
            limit: Seconds to wait for threads that cannot be stopped where they are.

        Raises:
            CheckpointError: A thread stayed where it cannot be stopped; all go on.
            UnsupportedFeature: This interpreter has no free tool number of `sys.monitoring`.
        """
        deadline = time.monotonic() + limit
        while late := self._try():
            # No thread is stopped during this wait: the late ones may be waiting for others.
            if time.monotonic() > deadline:
                message = (
                    f"no checkpoint was taken: after {limit:g} s some threads still hold a lock that the checkpoint "
                    f"needs, and cannot be stopped: {stacks.describe_threads(late)}"
                )
                raise CheckpointError(message)
            time.sleep(0.001)

    def settle(self) -> None:
        """Wait a moment for threads that are about to come back from C, which a dump would split: both sides finish."""
        deadline = time.monotonic() + _SETTLE
        while self._held - self._stopped and time.monotonic() < deadline:
            time.sleep(0.001)

    def _try(self) -> list[int]:
        """Stop all other threads, or none; return those that prevented it."""
        me = _thread.get_ident()
        frames = {ident: frame for ident, frame in sys._current_frames().items() if ident != me}  # noqa: SLF001
        late = _unsafe(frames)
        if late or not frames:
            return late
        self._mechanism = safepoints.mechanism()
        self._gate.acquire()
        self._held = frozenset(frames)
        try:
            self._mechanism.install(self._stop, frames.values())
            frames = sys._current_frames()  # noqa: SLF001
            late = _unsafe({ident: frames[ident] for ident in self._held - self._stopped if ident in frames})
        except BaseException:
            self.end()
            raise
        if late:
            self.end()
        return late

    def _stop(self, frame: FrameType) -> None:
        """Wait in a thread that is at a safe point; the mechanism calls this there."""
        me = _thread.get_ident()
        if me not in self._held or not is_safe(frame):
            return
        self._stopped.add(me)
        interruption: BaseException | None = None
        while me in self._held:
            try:
                with self._gate:
                    pass
            except BaseException as error:  # noqa: BLE001 - a signal handler raised it, in the main thread
                interruption = error
        if interruption is not None:
            raise interruption

    def end(self) -> None:
        """Let all threads go on; a second call does nothing."""
        mechanism, self._mechanism = self._mechanism, None
        if mechanism is None:
            return
        held, self._held = self._held, frozenset()
        try:
            mechanism.remove()
        finally:
            self._stopped -= held
            self._gate.release()

    def places(self) -> str:
        """Describe where the stopped threads are."""
        return stacks.describe_threads(sorted(self._held))

    @contextlib.contextmanager
    def guarded(self, limit: float | None) -> Iterator[float | None]:
        """
        Let all threads go on if the block waits for a stopped thread.

        Args:
            limit: Seconds that the block may take; None for `LIMIT`.

        Yields:
            The seconds after which to interrupt a block that does not finish even then; None for never.

        Raises:
            HookError: The block took longer; all threads go on.
        """
        if not self.active:
            yield limit
            return
        guard = _Guard(self, LIMIT if limit is None else limit)
        try:
            yield None if limit is None else limit + _GRACE
        except BaseException as error:
            guard.leave()
            if guard.report and isinstance(error, Exception):
                raise HookError(guard.report) from error
            raise
        guard.leave()
        if guard.report:
            raise HookError(guard.report)


class _Guard:
    """A thread that watches one call; started by `_thread`, because `threading` takes locks for that."""

    def __init__(self, thread_stop: ThreadStop, limit: float) -> None:
        self.report = ""
        self._thread_stop = thread_stop
        self._limit = limit
        self._watched = _thread.get_ident()
        self._left = _thread.allocate_lock()
        self._left.acquire()
        self._ended = _thread.allocate_lock()
        self._ended.acquire()
        self._native = 0
        _thread.start_new_thread(self._watch, ())

    def _watch(self) -> None:
        self._native = _thread.get_native_id()
        try:
            if not self._left.acquire(timeout=self._limit):
                self._break()
        finally:
            self._ended.release()

    def _break(self) -> None:
        here = stacks.describe_stack(sys._current_frames().get(self._watched))  # noqa: SLF001
        self.report = (
            f"it was not finished after {self._limit:g} s, waiting at {here} for a lock or an answer of a stopped "
            f"thread; stopped: {self._thread_stop.places()}"
        )
        self._thread_stop.end()

    def leave(self) -> None:
        """End the guard and wait until its thread is gone, so that the dump does not contain it."""
        self._left.release()
        self._ended.acquire()
        while os.path.exists(f"/proc/self/task/{self._native}"):
            time.sleep(0)
