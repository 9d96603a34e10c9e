"""
Hooks around a checkpoint: what a program does before its dump and after its restore.

Order: before-hooks run in reverse order of registration, after-hooks in order, so that what was
set up first is torn down last and put right first. A priority (default 0) comes before the order
of registration: after-hooks of lower priority run first, before-hooks of lower priority last.

A *single-threaded* hook runs while all other Python threads are stopped: such before-hooks are the last thing before
the dump, after all others, and such after-hooks are the first. Among them the order is the same.
"""

from __future__ import annotations

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

    Both methods may be `async`. `after_restore` also runs when the dump failed, or when the
    original goes on (`then="continue"`), so that the process works as before.
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
        Take back every registration of a function or resource.

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
        """Forget a resource that was garbage collected; the callback of its weak reference."""
        with self._lock:
            self._entries = [entry for entry in self._entries if entry.key is not reference]

    @staticmethod
    def _key_of(entry: Entry) -> object:
        return entry.key() if isinstance(entry.key, weakref.ref) else entry.key

    def _refuse_while_running(self, name: str) -> None:
        if self._running:
            message = (
                f"{name} cannot be registered or unregistered while checkpoint hooks run; "
                "do it before the checkpoint begins, or after it is over"
            )
            raise HookError(message)

    def begin(self) -> tuple[Entry, ...]:
        """Forbid registration and return the hooks in order of registration."""
        with self._lock:
            if self._running:
                message = "a checkpoint is already under way in this process; wait until it is over"
                raise HookError(message)
            self._running = True
            return tuple(self._entries)

    def end(self) -> None:
        """Allow registration again."""
        self._running = False


registry = HookRegistry()


def befores(entries: tuple[Entry, ...]) -> Iterator[Entry]:
    """Return the entries that have a before-call, in the order in which these run."""
    return (entry for entry in reversed(entries) if entry.before is not None)


def _bind(function: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], object]:
    if not callable(function):
        message = f"a hook must be callable, not {function!r}"
        raise TypeError(message)
    if not args and not kwargs:
        return function
    return lambda: function(*args, **kwargs)


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

    Before-hooks run in reverse order of registration. One that raises means that no dump is
    taken; the hooks that ran are undone, by running the after-hooks registered later than it.

    Args:
        function: What to run; it may be `async`.
        args: Its positional arguments.
        priority: Hooks of higher priority run first; default 0.
        single_threaded: Whether all other Python threads are stopped while it runs; one that waits for something that
            a stopped thread holds is an error after `hook_limit`, or ten seconds. Default False.
        kwargs: Its keyword arguments.

    Returns:
        The function, so that it can be used as a decorator.

    Raises:
        HookError: Hooks are running.
    """
    if function is None:
        return lambda decorated: before_checkpoint(decorated, priority=priority, single_threaded=single_threaded)
    call = _bind(function, args, kwargs)
    registry.add(function, _describe(function), call, None, priority, single_threaded=single_threaded)
    return function


@overload
def after_restore(function: F, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any) -> F: ...
@overload
def after_restore(*, priority: int = 0, single_threaded: bool = False) -> Callable[[F], F]: ...
def after_restore(
    function: Any = None, *args: Any, priority: int = 0, single_threaded: bool = False, **kwargs: Any
) -> Any:
    """
    Register a function to run after a restore, as a decorator or by a call.

    It also runs in the original, when the dump failed or when it goes on after the dump.

    Args:
        function: What to run; it may be `async`.
        args: Its positional arguments.
        priority: Hooks of lower priority run first; default 0.
        single_threaded: Whether all other Python threads are still stopped when it runs; one that waits for something
            that a stopped thread holds is an error after `hook_limit`, or ten seconds. Default False.
        kwargs: Its keyword arguments.

    Returns:
        The function, so that it can be used as a decorator.

    Raises:
        HookError: Hooks are running.
    """
    if function is None:
        return lambda decorated: after_restore(decorated, priority=priority, single_threaded=single_threaded)
    call = _bind(function, args, kwargs)
    registry.add(function, _describe(function), None, call, priority, single_threaded=single_threaded)
    return function


def register(resource: R, *, priority: int = 0, single_threaded: bool = False) -> R:
    """
    Register a resource, which is held weakly: it goes when nothing else refers to it.

    Args:
        resource: An object with `before_checkpoint()` and `after_restore()`.
        priority: See `before_checkpoint` and `after_restore`; default 0.
        single_threaded: See there; default False.

    Returns:
        The resource.

    Raises:
        TypeError: A method is missing, or the object cannot be referred to weakly.
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
    Take back every registration of a function or resource.

    Raises:
        ValueError: It is not registered.
        HookError: Hooks are running.
    """
    registry.remove(hook)
