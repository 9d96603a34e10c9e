"""
The ids of process and threads, where a copy has others than the dumped process: in native copies.

CPython keeps the kernel's id of each thread in the thread's state and in its `threading.Thread`, and asyncio the pid
with each running loop (up to 3.11), which it does not find in a process with another pid.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, Any

from libcriu_py.linux import native
from libcriu_py.resources.base import Arrival, BuiltIn

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEARCHED = 0x100
"""Bytes of a thread's state in which its ids are: both stand together, `thread_id` and `native_thread_id`."""
_WORD = 8
_RUNNING_LOOP = "__asyncio_running_event_loop__"
_HOLDER = "_RunningLoopHolder"


class NativeIds(BuiltIn):
    """Thread ids, and the pid of running event loops."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._places: dict[int, ctypes.c_ulong] = {}
        """Where the state of a thread has its native id, by its ident."""
        self._holders: list[object] = []
        """The objects of running loops, which have the pid."""

    def before_dump(self) -> None:
        """Find where the ids are."""
        for state in _thread_states():
            self._find_id(state)
        found = [(holder, place) for state in _thread_states() for holder, place in self._find_loop(state)]
        self._holders = [holder for holder, _ in found]
        # In C, before any thread goes on: a loop that runs would not find itself.
        native.renew_pids([place for _, place in found])

    def in_original(self) -> None:
        """Forget what was found."""
        native.renew_pids([])
        super().in_original()

    def before_dump_last(self) -> bool:
        """Return whether there is more than one id."""
        return self.only_id() is None

    def only_id(self) -> tuple[object, int] | None:
        """Return the thread that dumps, if it is the only one, and where its id is."""
        threads: Any = threading
        if self._holders or len(threads._active) != 1 or threads._limbo or len(self._places) != 1:  # noqa: SLF001
            return None
        ((ident, thread),) = threads._active.items()  # noqa: SLF001
        place = self._places.get(ident)
        if place is None or ident != threading.get_ident() or place.value != thread._native_id:  # noqa: SLF001
            return None
        return thread, ctypes.addressof(place)

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Put the copy's in their places."""
        if native.dumped_pid():
            threads: Any = threading
            for ident, thread in threads._active.items():  # noqa: SLF001
                renewed = native.new_tid(thread._native_id or 0)  # noqa: SLF001
                if renewed:
                    self._renew(ident, thread, renewed)
        vars(self).clear()

    def _renew(self, ident: int, thread: Any, renewed: int) -> None:
        place = self._places.get(ident)
        if place is not None and place.value == thread._native_id:  # noqa: SLF001
            place.value = renewed
        thread._native_id = renewed  # noqa: SLF001

    def _find_id(self, state: int) -> None:
        words = (ctypes.c_ulong * (_SEARCHED // _WORD)).from_address(state)
        known = {thread.ident: thread.native_id for thread in threading.enumerate()}
        for index in range(len(words) - 1):
            if words[index] in known and words[index + 1] == known[words[index]]:
                place = state + (index + 1) * _WORD
                self._places[words[index]] = ctypes.c_ulong.from_address(place)
                return

    def _find_loop(self, state: int) -> Iterator[tuple[object, int]]:
        """Yield the object of the loop that runs in a thread, and where it has the pid."""
        of_thread = _dict_of(state)
        holder = None if of_thread is None else of_thread.get(_RUNNING_LOOP)
        if type(holder).__name__ != _HOLDER:
            return
        # Behind the object's header and the loop (Modules/_asynciomodule.c).
        place = id(holder) + object.__basicsize__ + _WORD
        if ctypes.c_int.from_address(place).value == self._pid:
            yield holder, place


def _thread_states() -> list[int]:
    """Return the addresses of the states of all Python threads; no other runs meanwhile."""
    api = ctypes.pythonapi
    head, following, interpreter = api.PyInterpreterState_ThreadHead, api.PyThreadState_Next, api.PyInterpreterState_Get
    for function in (head, following, interpreter):
        function.restype = ctypes.c_void_p
    head.argtypes = following.argtypes = [ctypes.c_void_p]
    found: list[int] = []
    state = head(interpreter())
    while state:
        found.append(state)
        state = following(state)
    return found


def _dict_of(state: int) -> dict[str, Any] | None:
    """Return the dictionary of a thread's state, where this version of Python shows it."""
    function = getattr(ctypes.pythonapi, "_PyThreadState_GetDict", None)
    if function is None:
        return None
    function.restype = ctypes.c_void_p
    function.argtypes = [ctypes.c_void_p]
    address = function(state)
    if not address:
        return None
    found = ctypes.cast(address, ctypes.py_object).value
    return found if isinstance(found, dict) else None
