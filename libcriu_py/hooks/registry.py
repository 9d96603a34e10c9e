"""
Hooks around a checkpoint: what a program does before its dump and after its restore.

Before-hooks run in reverse order of registration, after-hooks in order, so that what was set up first is torn down last
and put right first. A priority (default 0) outranks the order of registration: after-hooks of lower priority run first,
before-hooks of lower priority last.

A *single-threaded* hook runs while all other Python threads are stopped. Single-threaded before-hooks run last, right
before the dump, and single-threaded after-hooks run first, in the same order among themselves.

Libraries import this wherever they run, so it imports builtin modules alone: no typing, no threading, no C of ours.
"""

from __future__ import annotations

import _thread
from _weakref import ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn, Protocol, TypeVar, overload

    from libcriu_py.hooks.resource import Resource

    F = TypeVar("F", bound="Callable[..., object]")
    R = TypeVar("R", bound=Resource)

    class Decorator(Protocol):
        """What registers a function, and returns it or a decorator."""

        @overload
        def __call__(
            self, function: F, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any
        ) -> F: ...
        @overload
        def __call__(self, *, priority: int = 0, single_threaded: bool = False) -> Callable[[F], F]: ...


class Entry:
    """One registration: a pair of calls, either of which may be missing."""

    __slots__ = ("after", "before", "key", "name", "priority", "sequence", "single_threaded")

    def __init__(
        self,
        order: tuple[int, int],
        name: str,
        key: object,
        before: Callable[[], object] | None,
        after: Callable[[], object] | None,
        *,
        single_threaded: bool,
    ) -> None:
        """Keep the registration; `order` is its priority and its number."""
        self.priority, self.sequence = order
        self.name = name
        self.key = key
        self.before = before
        self.after = after
        self.single_threaded = single_threaded


def _describe(function: object) -> str:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None) or repr(function)
    return f"{module}.{name}" if module else str(name)


def _fail(message: str) -> NoReturn:
    from libcriu_py.errors import HookError  # a dozen classes, which cost more than all else here

    raise HookError(message)


class HookRegistry:
    """
    The registered hooks of a process, in order.

    Thread safety: registration may happen in any thread, but not while hooks run.
    """

    def __init__(self) -> None:
        """Make an empty registry."""
        self._entries: list[Entry] = []
        self._lock = _thread.RLock()
        self._sequence = 0
        self._running = False

    def __len__(self) -> int:
        """Return the number of registrations."""
        return len(self._entries)

    def add(
        self,
        key: object,
        name: str,
        before: Callable[[], object] | None,
        after: Callable[[], object] | None,
        priority: int,
        *,
        single_threaded: bool = False,
    ) -> None:
        """
        Register one pair of calls.

        Raises:
            HookError: Hooks are running.
        """
        with self._lock:
            self._refuse_while_running(name)
            self._sequence += 1
            order = priority, self._sequence
            self._entries.append(Entry(order, name, key, before, after, single_threaded=single_threaded))
            self._entries.sort(key=lambda entry: (entry.priority, entry.sequence))

    def remove(self, key: object) -> None:
        """
        Remove every registration of a function or resource.

        Raises:
            ValueError: It is not registered.
            HookError: Hooks are running.
        """
        with self._lock:
            self._refuse_while_running(_describe(key))
            kept = [entry for entry in self._entries if self._key_of(entry) is not key]
            if len(kept) == len(self._entries):
                message = f"{_describe(key)} is not registered as a hook or resource"
                raise ValueError(message)
            self._entries = kept

    def discard_reference(self, reference: ref[object]) -> None:
        """Forget a garbage-collected resource; this is the callback of its weak reference."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.key is not reference]

    @staticmethod
    def _key_of(entry: Entry) -> object:
        return entry.key() if isinstance(entry.key, ref) else entry.key

    def _refuse_while_running(self, name: str) -> None:
        if self._running:
            message = (
                f"{name} cannot be registered or unregistered while checkpoint hooks run; "
                "do it before or after the checkpoint"
            )
            _fail(message)

    def begin(self) -> tuple[Entry, ...]:
        """Forbid registration and return the hooks in order of registration."""
        with self._lock:
            if self._running:
                message = "this process is already taking a checkpoint; wait until it is over"
                _fail(message)
            self._running = True
            return tuple(self._entries)

    def end(self) -> None:
        """Allow registration again."""
        self._running = False


registry = HookRegistry()


def befores(entries: tuple[Entry, ...]) -> Iterator[Entry]:
    """Return the entries that have a before-call, in the order in which they run."""
    return (entry for entry in reversed(entries) if entry.before is not None)


def _add_function(
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    after: bool,
    priority: int,
    single_threaded: bool,
) -> Any:
    """Register a function on one side of the checkpoint; return it, or a decorator if there is none yet."""
    if function is None:
        return lambda decorated: _add_function(
            decorated, args, kwargs, after=after, priority=priority, single_threaded=single_threaded
        )
    if not callable(function):
        message = f"a hook must be callable, not {function!r}"
        raise TypeError(message)
    call = (lambda: function(*args, **kwargs)) if args or kwargs else function
    before, then = (None, call) if after else (call, None)
    registry.add(function, _describe(function), before, then, priority, single_threaded=single_threaded)
    return function


def _typed(function: Callable[..., Any]) -> Decorator:
    """Return it with a type that `overload` would give it, if that needed no import of typing."""
    return function


@_typed
def before_checkpoint(
    function: Any = None, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any
) -> Any:
    """
    Register a function to run before a dump, as a decorator or by a call.

    Before-hooks run in reverse order of registration. If one raises, no dump is taken; the after-hooks registered later
    than it undo the hooks that ran.

    Args:
        function: What to run; it may be `async`.
        args: Its positional arguments.
        priority: Hooks of higher priority run first; default 0.
        single_threaded: Whether all other Python threads are stopped while it runs. A hook that waits for a stopped
            thread fails after `hook_limit`, or ten seconds. Default False.
        kwargs: Its keyword arguments.

    Returns:
        The function.

    Raises:
        TypeError: The function is not callable.
        HookError: Hooks are running.
    """
    return _add_function(function, args, kwargs, after=False, priority=priority, single_threaded=single_threaded)


@_typed
def after_restore(
    function: Any = None, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any
) -> Any:
    """
    Register a function to run after a restore, as a decorator or by a call.

    It also runs in the original, if the dump failed or the original continues after it.

    Args:
        function: What to run; it may be `async`.
        args: Its positional arguments.
        priority: Hooks of lower priority run first; default 0.
        single_threaded: Whether it runs while all other Python threads are still stopped; see `before_checkpoint`.
            Default False.
        kwargs: Its keyword arguments.

    Returns:
        The function.

    Raises:
        TypeError: The function is not callable.
        HookError: Hooks are running.
    """
    return _add_function(function, args, kwargs, after=True, priority=priority, single_threaded=single_threaded)


def register(resource: R, *, priority: int = 0, single_threaded: bool = False) -> R:
    """
    Register a resource, held by a weak reference: the registration goes when nothing else refers to the resource.

    Args:
        resource: An object with `before_checkpoint()` and `after_restore()`.
        priority: See `before_checkpoint` and `after_restore`; default 0.
        single_threaded: See `before_checkpoint`; default False.

    Returns:
        The resource.

    Raises:
        TypeError: A method is missing, or the object does not support weak references.
        HookError: Hooks are running.
    """
    if not all(callable(getattr(resource, name, None)) for name in ("before_checkpoint", "after_restore")):
        message = f"{resource!r} lacks before_checkpoint() or after_restore()"
        raise TypeError(message)
    reference: ref[Any] = ref(resource, registry.discard_reference)

    def before() -> object:
        alive = reference()
        return None if alive is None else alive.before_checkpoint()

    def after() -> object:
        alive = reference()
        return None if alive is None else alive.after_restore()

    registry.add(reference, _describe(type(resource)), before, after, priority, single_threaded=single_threaded)
    return resource


def unregister(hook: object) -> None:
    """
    Remove every registration of a function or resource.

    Raises:
        ValueError: It is not registered.
        HookError: Hooks are running.
    """
    registry.remove(hook)
