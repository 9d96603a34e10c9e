"""
Hooks around a checkpoint: what a program does before its dump and after its restore.

Before-hooks run in reverse order of registration, after-hooks in order, so that what was set up first is torn down last
and put right first. A priority (default 0) outranks the order of registration: after-hooks of lower priority run first,
before-hooks of lower priority last.

A *single-threaded* hook runs while all other Python threads are stopped. Single-threaded before-hooks run last, right
before the dump, and single-threaded after-hooks run first, in the same order among themselves.
"""

from __future__ import annotations

import functools
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, overload, runtime_checkable

from libcriu_py.errors import HookError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Hook = Callable[..., object]

F = TypeVar("F", bound="Callable[..., object]")


@runtime_checkable
class Resource(Protocol):
    """
    Something that must be let go before a dump and put right after a restore.

    Both methods may be `async`. `after_restore` also runs when the dump failed, or when the original continues
    (`then="continue"`), so that the process works as before.
    """

    def before_checkpoint(self) -> Awaitable[None] | None:
        """Let go of what cannot be dumped."""

    def after_restore(self) -> Awaitable[None] | None:
        """Put right what was let go."""


R = TypeVar("R", bound=Resource)


class Entry(NamedTuple):
    """One registration: a pair of calls, either of which may be missing."""

    priority: int
    sequence: int
    name: str
    key: object
    before: Callable[[], object] | None
    after: Callable[[], object] | None
    single_threaded: bool = False


def _describe(function: object) -> str:
    module = getattr(function, "__module__", None)
    name = getattr(function, "__qualname__", None) or repr(function)
    return f"{module}.{name}" if module else str(name)


class HookRegistry:
    """
    The registered hooks of a process, in order.

    Thread safety: registration may happen in any thread, but not while hooks run.
    """

    def __init__(self) -> None:
        """Make an empty registry."""
        self._entries: list[Entry] = []
        self._lock = threading.RLock()
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
            self._entries.append(Entry(priority, self._sequence, name, key, before, after, single_threaded))
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

    def discard_reference(self, reference: weakref.ref[object]) -> None:
        """Forget a garbage-collected resource; this is the callback of its weak reference."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.key is not reference]

    @staticmethod
    def _key_of(entry: Entry) -> object:
        return entry.key() if isinstance(entry.key, weakref.ref) else entry.key

    def _refuse_while_running(self, name: str) -> None:
        if self._running:
            message = (
                f"{name} cannot be registered or unregistered while checkpoint hooks run; "
                "do it before or after the checkpoint"
            )
            raise HookError(message)

    def begin(self) -> tuple[Entry, ...]:
        """Forbid registration and return the hooks in order of registration."""
        with self._lock:
            if self._running:
                message = "this process is already taking a checkpoint; wait until it is over"
                raise HookError(message)
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
    call = functools.partial(function, *args, **kwargs) if args or kwargs else function
    before, then = (None, call) if after else (call, None)
    registry.add(function, _describe(function), before, then, priority, single_threaded=single_threaded)
    return function


@overload
def before_checkpoint(
    function: F, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any
) -> F: ...
@overload
def before_checkpoint(*, priority: int = 0, single_threaded: bool = False) -> Callable[[F], F]: ...
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


@overload
def after_restore(function: F, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any) -> F: ...
@overload
def after_restore(*, priority: int = 0, single_threaded: bool = False) -> Callable[[F], F]: ...
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
    candidate: object = resource
    if not isinstance(candidate, Resource):
        message = f"{resource!r} lacks before_checkpoint() or after_restore()"
        raise TypeError(message)
    reference: weakref.ref[Any] = weakref.ref(resource, registry.discard_reference)

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
