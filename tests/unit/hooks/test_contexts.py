"""Contexts: resources in an order of their own."""

from __future__ import annotations

import asyncio
import gc

import pytest

from libcriu_py import Context, HookError, checkpoint, checkpoint_here, register

pytestmark = pytest.mark.usefixtures("fresh_registry")


class Thing:
    """A resource that notes its calls, and may fail."""

    def __init__(self, log: list[str], name: str, fails: str = "") -> None:
        self.log, self.name, self.fails = log, name, fails

    def before_checkpoint(self) -> None:
        """Note it."""
        self._note("before")

    def after_restore(self) -> None:
        """Note it."""
        self._note("after")

    def _note(self, when: str) -> None:
        if self.fails == when:
            raise OSError(self.name)
        self.log.append(f"{when} {self.name}")


class Later(Thing):
    """An async one."""

    async def before_checkpoint(self) -> None:  # type: ignore[override]
        """Note it in the next turn of the loop."""
        await asyncio.sleep(0)
        self._note("before")

    async def after_restore(self) -> None:  # type: ignore[override]
        """Note it in the next turn of the loop."""
        await asyncio.sleep(0)
        self._note("after")


def tree(log: list[str], second: Thing) -> tuple[object, ...]:
    """Register a context with a nested one between two resources, and return what keeps all alive."""
    outer, inner = register(Context()), Context()
    first, last = outer.register(Thing(log, "first")), Thing(log, "last")
    outer.register(inner)
    inner.register(second)
    outer.register(last)
    return outer, inner, first, second, last


def test_order_of_nested_contexts() -> None:
    """A nested context has its place among the resources around it, and forgets what is gone."""
    log: list[str] = []
    kept = tree(log, Thing(log, "second"))
    outer = kept[0]
    assert isinstance(outer, Context)
    outer.register(Thing(log, "gone"))
    gc.collect()
    checkpoint_here(engine="simulate")
    assert log == ["before last", "before second", "before first", "after first", "after second", "after last"]


def test_failure_is_undone() -> None:
    """Those that were let go are put right, those that were not are left alone."""
    log: list[str] = []
    kept = tree(log, Thing(log, "second", "before"))
    with pytest.raises(HookError, match="Context failed: OSError: second"):
        checkpoint_here(engine="simulate")
    assert log == ["before last", "after last"]
    assert len(kept) == 5


def test_all_are_put_right() -> None:
    """One that fails keeps no other from it."""
    log: list[str] = []
    kept = tree(log, Thing(log, "second", "after"))
    with pytest.raises(HookError, match="Context failed: OSError: second"):
        checkpoint_here(engine="simulate")
    assert log[3:] == ["after first", "after last"]
    assert len(kept) == 5


def test_async_resources() -> None:
    """Async resources are awaited in the running loop, at their place."""
    log: list[str] = []

    async def main() -> None:
        kept = tree(log, Later(log, "second"))
        async with checkpoint(engine="simulate"):
            pass
        assert len(kept) == 5

    asyncio.run(main())
    assert log == ["before last", "before second", "before first", "after first", "after second", "after last"]
