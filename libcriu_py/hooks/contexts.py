"""
Contexts: resources that are let go and put right together, at one point in the order of hooks.

As in `org.crac`, a context is itself a resource, so contexts nest.
"""

from __future__ import annotations

import inspect
import weakref
from typing import TYPE_CHECKING, TypeVar

from libcriu_py.hooks import runner
from libcriu_py.hooks.lifecycle import drive

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from libcriu_py.hooks.resource import Resource

R = TypeVar("R", bound="Resource")


class Context:
    """
    A group of resources with an order of its own.

        context = register(Context())
        pool = context.register(Pool())
        cache = context.register(Context())     # nested

    They are let go in reverse order of registration, and put right in order. If one cannot be let go, the context puts
    right those that were, and fails. A failure to put one right does not keep the others from being put right.

    Thread safety: registration may happen in any thread, but not while hooks run.
    """

    def __init__(self) -> None:
        """Make an empty context; register it with `libcriu_py.register` or another context."""
        self._references: list[weakref.ref[Any]] = []

    def register(self, resource: R) -> R:
        """Add a resource or context, held by a weak reference; return it."""
        self._references.append(weakref.ref(resource, self._references.remove))
        return resource

    def before_checkpoint(self) -> Coroutine[Any, Any, None] | None:
        """Let go of all resources."""
        return self._run(self._let_go)

    def after_restore(self) -> Coroutine[Any, Any, None] | None:
        """Put all resources right."""
        return self._run(self._put_right)

    def _run(self, work: Callable[[list[Any]], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None] | None:
        resources = self._alive()
        if any(_is_async(resource) for resource in resources):
            return work(resources)
        drive(work(resources))
        return None

    def _alive(self) -> list[Any]:
        found = [reference() for reference in self._references]
        return [resource for resource in found if resource is not None]

    async def _let_go(self, resources: list[Any]) -> None:
        for index in reversed(range(len(resources))):
            try:
                await _call(resources[index].before_checkpoint)
            except BaseException as error:  # noqa: BLE001 - raised once the others are undone
                undone = await _failures(resources[index + 1 :])
                runner.raise_all([error, *undone], "a resource of a context failed, and so did undoing others")

    async def _put_right(self, resources: list[Any]) -> None:
        runner.raise_all(await _failures(resources), "resources of a context failed")


def _is_async(resource: Any) -> bool:
    if isinstance(resource, Context):
        return any(_is_async(inner) for inner in resource._alive())  # noqa: SLF001
    # Both methods count: if a resource fails to be let go, the same call puts the others right.
    methods = (resource.before_checkpoint, resource.after_restore)
    return any(inspect.iscoroutinefunction(method) for method in methods)


async def _call(function: Callable[[], object]) -> None:
    result = function()
    if inspect.isawaitable(result):
        await result


async def _failures(resources: list[Any]) -> list[BaseException]:
    errors: list[BaseException] = []
    for resource in resources:
        try:
            await _call(resource.after_restore)
        except BaseException as error:  # noqa: BLE001 - raised once all have run
            errors.append(error)
    return errors
