"""
Safe points: calls into other threads between two of their bytecodes, where they can be stopped.

Python 3.12 and later use `sys.monitoring`, for calls and returns everywhere, and for single instructions in functions
that are running. Earlier versions set a C trace function in each thread, as a debugger does (`_PyEval_SetTrace`,
Python/ceval.c), and put back a debugger's own afterwards. A thread in a C function is reached only when that returns,
whether it waits there or computes.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from libcriu_py.errors import UnsupportedFeature

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import CodeType, FrameType

    Stop = Callable[[FrameType], None]


class Mechanism(Protocol):
    """A way to be called at the safe points of other threads."""

    def install(self, stop: Stop, stacks: Iterable[FrameType]) -> None:
        """
        Arrange for `stop` to be called before the next bytecode of each other thread.

        Args:
            stop: Called with the frame; it may wait.
            stacks: The innermost frame of each other thread.
        """

    def remove(self) -> None:
        """Let threads run freely again."""


def mechanism() -> Mechanism:
    """Return the mechanism of this Python version."""
    return Monitoring() if sys.version_info >= (3, 12) else Tracing()


def frames_of(innermost: FrameType | None) -> Iterable[FrameType]:
    """Walk up a stack."""
    while innermost is not None:
        yield innermost
        innermost = innermost.f_back


class Monitoring:
    """Safe points by `sys.monitoring`, which reports the calling thread's own events too."""

    _FREE = (4, 3, 5)
    """Tool numbers to try, those without a predefined use first (Doc/library/sys.monitoring)."""

    def __init__(self) -> None:
        module: Any = sys
        self._monitoring: Any = module.monitoring
        self._tool = -1
        self._codes: set[CodeType] = set()

    def install(self, stop: Stop, stacks: Iterable[FrameType]) -> None:
        """Watch calls and returns, and each instruction of the functions on the stacks."""
        monitoring = self._monitoring
        free = [tool for tool in self._FREE if monitoring.get_tool(tool) is None]
        if not free:
            message = "other threads cannot be stopped: every tool number of sys.monitoring is in use"
            raise UnsupportedFeature(message)
        self._tool = free[0]
        monitoring.use_tool_id(self._tool, "libcriu_py")
        events = monitoring.events
        anywhere = (
            events.PY_START,
            events.PY_RESUME,
            events.PY_THROW,
            events.PY_RETURN,
            events.PY_YIELD,
            events.PY_UNWIND,
        )

        def event(*_: object) -> None:
            stop(sys._getframe(1))  # noqa: SLF001

        for kind in (*anywhere, events.INSTRUCTION):
            monitoring.register_callback(self._tool, kind, event)
        self._codes = {frame.f_code for innermost in stacks for frame in frames_of(innermost)}
        for code in self._codes:
            monitoring.set_local_events(self._tool, code, events.INSTRUCTION)
        monitoring.set_events(self._tool, sum(anywhere))

    def remove(self) -> None:
        """Watch nothing."""
        if self._tool < 0:
            return
        self._monitoring.set_events(self._tool, 0)
        for code in self._codes:
            self._monitoring.set_local_events(self._tool, code, 0)
        self._codes = set()
        self._monitoring.free_tool_id(self._tool)
        self._tool = -1


class Tracing:
    """Safe points by a C trace function in each existing thread."""

    # Offsets of c_tracefunc and c_traceobj in struct _ts (Include/cpython/pystate.h), fixed within a release.
    _OFFSETS = {(3, 10): (64, 80), (3, 11): (72, 88)}  # noqa: RUF012 - constant

    def __init__(self) -> None:
        import ctypes

        self._ctypes: Any = ctypes
        make = ctypes.PYFUNCTYPE
        pointer, api = ctypes.c_void_p, ctypes.pythonapi
        self._function, self._object = self._OFFSETS[sys.version_info[:2]]
        self._set: Any = make(ctypes.c_int, pointer, pointer, pointer)(("_PyEval_SetTrace", api))
        self._current: Any = make(pointer)(("PyThreadState_Get", api))
        self._interpreter: Any = make(pointer, pointer)(("PyThreadState_GetInterpreter", api))
        self._head: Any = make(pointer, pointer)(("PyInterpreterState_ThreadHead", api))
        self._next: Any = make(pointer, pointer)(("PyThreadState_Next", api))
        self._raise_later: Any = make(ctypes.c_int, ctypes.c_ulong, ctypes.py_object)(
            ("PyThreadState_SetAsyncExc", api)
        )
        self._callback: Any = None
        self._former: dict[int, tuple[int, object]] = {}
        self._frames: list[FrameType] = []

    def install(self, stop: Stop, stacks: Iterable[FrameType]) -> None:
        """Set the trace function, to be called for each bytecode of the functions on the stacks."""
        import _thread

        ctypes = self._ctypes

        def event(_: object, frame: FrameType, what: int, argument: object) -> int:  # noqa: ARG001
            try:
                stop(frame)
            except BaseException as error:  # noqa: BLE001 - ctypes would drop it
                self._raise_later(_thread.get_ident(), type(error))
            return 0

        kind = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.py_object, ctypes.c_int, ctypes.c_void_p)
        self._callback = kind(event)
        self._frames = [frame for innermost in stacks for frame in frames_of(innermost) if not frame.f_trace_opcodes]
        for frame in self._frames:
            frame.f_trace_opcodes = True
        address = ctypes.cast(self._callback, ctypes.c_void_p).value
        for state in self._others():
            self._former[state] = (self._read(state + self._function), self._traced(state))
            self._set(state, address, None)

    def remove(self) -> None:
        """Put the former trace functions back."""
        ours = self._ctypes.cast(self._callback, self._ctypes.c_void_p).value
        for state in self._others():
            if state in self._former and self._read(state + self._function) == ours:
                function, traced = self._former[state]
                self._set(state, function or None, id(traced) if traced is not None else None)
        for frame in self._frames:
            frame.f_trace_opcodes = False
        # Keep the callback alive: a thread may still be returning from it.
        self._former, self._frames = {}, []

    def _others(self) -> Iterable[int]:
        current = self._current()
        state = self._head(self._interpreter(current))
        while state:
            following = self._next(state)
            if state != current:
                yield state
            state = following

    def _read(self, address: int) -> int:
        return self._ctypes.c_void_p.from_address(address).value or 0

    def _traced(self, state: int) -> object:
        """Return a new reference to the object of a trace function, since the thread drops its own."""
        address = state + self._object
        return self._ctypes.py_object.from_address(address).value if self._read(address) else None
