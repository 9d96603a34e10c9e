"""
Thread stops: all other Python threads are stopped, for hooks that want to be alone, and through the dump.

A thread stops at a *safe point*: between two bytecodes, and not where it holds a lock that the checkpoint itself
takes. One that waits in C, for a lock or for data, stops when it comes back from there; native code that runs without
the interpreter's lock goes on. Threads that are started meanwhile run: they are the hook's own.

A hook that waits for a stopped thread, for its lock or for its answer, would wait for ever. A guard ends that: after
some time it lets all threads go on, and the hook, which can then finish, is an error that says where each one stood.
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
"""Seconds after which a hook is taken to wait for a stopped thread, unless `hook_limit` says otherwise."""

_GRACE = 0.5  # seconds for what waited to become through, once all go on
# Imports and the bookkeeping of threads hold a lock of the whole process where these are the innermost call.
_LOCKED_INSIDE = frozenset({"importlib._bootstrap", "importlib._bootstrap_external"})
_LOCKED_IN = frozenset({("threading", name) for name in ("start", "enumerate", "_bootstrap_inner", "_delete")})
# A handler is locked while it writes, whatever it calls for that (Lib/logging, Handler.handle); so is our registry.
_LOCKED_BELOW = frozenset({"logging", "libcriu_py.hooks.registry"})


def is_safe(frame: FrameType) -> bool:
    """Return whether a thread may be stopped here."""
    name = frame.f_globals.get("__name__")
    if name in _LOCKED_INSIDE or (name, frame.f_code.co_name) in _LOCKED_IN:
        return False
    return all(each.f_globals.get("__name__") not in _LOCKED_BELOW for each in safepoints.frames_of(frame))


def _unsafe(frames: Mapping[int, FrameType]) -> list[int]:
    return [ident for ident, frame in frames.items() if not is_safe(frame)]


class ThreadStop:
    """
    One thread stop of this process.

    Thread safety: it is begun by the thread that takes the checkpoint, and ended by that or by its guard.
    """

    def __init__(self) -> None:
        """Stop nobody yet."""
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
            limit: Seconds to wait for those that cannot be stopped where they are.

        Raises:
            CheckpointError: One of them stays there; all go on.
            UnsupportedFeature: This interpreter lends no means to it.
        """
        deadline = time.monotonic() + limit
        while late := self._try():
            # Nobody is stopped while these are waited for: they may wait for others themselves.
            if time.monotonic() > deadline:
                message = (
                    f"no checkpoint was taken: after {limit:g} s there are threads that cannot be stopped where they "
                    f"are, for they hold a lock that the checkpoint needs: {stacks.describe_threads(late)}"
                )
                raise CheckpointError(message)
            time.sleep(0.001)

    def _try(self) -> list[int]:
        """Stop all, or none because of those that are returned."""
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
        """Be called in a thread at a safe point: wait there."""
        me = _thread.get_ident()
        if me not in self._held or not is_safe(frame):
            return
        self._stopped.add(me)
        interruption: BaseException | None = None
        while me in self._held:
            try:
                with self._gate:
                    pass
            except BaseException as error:  # noqa: BLE001 - of a signal handler, if this is the main thread
                interruption = error
        if interruption is not None:
            raise interruption

    def end(self) -> None:
        """Let all go on; a second time does nothing."""
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
        """Say where the stopped threads are."""
        return stacks.describe_threads(sorted(self._held))

    @contextlib.contextmanager
    def guarded(self, limit: float | None) -> Iterator[float | None]:
        """
        Let all threads go on if the block waits for a stopped thread.

        Args:
            limit: Seconds that it may take; None for `LIMIT`.

        Yields:
            The seconds after which the block is to be interrupted, if it is not through by then either; None for never.

        Raises:
            HookError: It took longer; all threads go on.
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
    """A thread that watches one call; of `_thread`, for `threading` takes locks to start one."""

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
            f"it was not through after {self._limit:g} s, waiting at {here}, while other threads are stopped; one of "
            f"them holds a lock, or owes an answer, that it waits for; stopped: {self._thread_stop.places()}"
        )
        self._thread_stop.end()

    def leave(self) -> None:
        """Be through, and without this thread: the dump would have it."""
        self._left.release()
        self._ended.acquire()
        while os.path.exists(f"/proc/self/task/{self._native}"):
            time.sleep(0)
