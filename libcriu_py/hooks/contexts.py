"""
Contexts of one's own: resources that are let go and put right together, at one place in the order.

As those of `org.crac`, a context is a resource itself, so that contexts nest.
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

    from libcriu_py.hooks.registry import Resource

R = TypeVar("R", bound="Resource")


class Context:
    """
    Resources in an order of their own.

        context = register(Context())
        pool = context.register(Pool())
        cache = context.register(Context())     # nested

    They are let go in reverse order of registration and put right in order. Where one cannot be let go, those of the
    context that were are put right, and the context has failed; all are put right, whatever others do.

    Thread safety: registration may happen in any thread, but not while hooks run.
    """

    def __init__(self) -> None:
        """Make an empty context; `libcriu_py.register` or another context registers it."""
        self._references: list[weakref.ref[Any]] = []

    def register(self, resource: R) -> R:
        """
        Add a resource or context, which is held weakly.

        Returns:
            It.
        """
        self._references.append(weakref.ref(resource, self._references.remove))
        return resource

    def before_checkpoint(self) -> Coroutine[Any, Any, None] | None:
        """Let all go."""
        return self._run(self._let_go)

    def after_restore(self) -> Coroutine[Any, Any, None] | None:
        """Put all right."""
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
        for place in reversed(range(len(resources))):
            try:
                await _call(resources[place].before_checkpoint)
            except BaseException as error:  # noqa: BLE001 - it is raised when others are undone
                undone = await _failures(resources[place + 1 :])
                runner.raise_all([error, *undone], "a resource of a context failed, and so did undoing others")

    async def _put_right(self, resources: list[Any]) -> None:
        runner.raise_all(await _failures(resources), "resources of a context failed")


def _is_async(resource: Any) -> bool:
    if isinstance(resource, Context):
        return any(_is_async(inner) for inner in resource._alive())  # noqa: SLF001
    # Both count: what was let go is put right in the same call when another one fails.
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
        except BaseException as error:  # noqa: BLE001 - it is raised when all have run
            errors.append(error)
    return errors
