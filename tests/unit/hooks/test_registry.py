"""Registration and order of hooks."""

from __future__ import annotations

import gc

import pytest

from libcriu_py import HookError, after_restore, before_checkpoint, checkpoint, checkpoint_here, register, unregister
from libcriu_py.hooks.registry import registry

pytestmark = pytest.mark.usefixtures("fresh_registry")


class Thing:
    """A resource that notes its calls."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log = log
        self.name = name

    def before_checkpoint(self) -> None:
        """Note it."""
        self.log.append(f"{self.name} before")

    def after_restore(self) -> None:
        """Note it."""
        self.log.append(f"{self.name} after")


def test_before_in_reverse_and_after_in_order() -> None:
    """What was set up first is torn down last and put right first."""
    log: list[str] = []
    first, second = register(Thing(log, "first")), register(Thing(log, "second"))
    checkpoint_here(engine="simulate")
    assert log == ["second before", "first before", "first after", "second after"]
    assert first.log is second.log


def test_priority_goes_before_registration() -> None:
    """Lower priorities are the foundation: put right first, torn down last."""
    log: list[str] = []
    kept = [register(Thing(log, "upper"), priority=10), register(Thing(log, "ground"), priority=-10)]
    checkpoint_here(engine="simulate")
    assert log == ["upper before", "ground before", "ground after", "upper after"]
    assert len(kept) == 2


def test_decorator_call_and_arguments() -> None:
    """A hook is registered by a decorator, with or without priority, or by a call with arguments."""
    log: list[str] = []

    @before_checkpoint
    def plain() -> None:
        log.append("plain")

    @before_checkpoint(priority=5)
    def with_priority() -> None:
        log.append("with priority")

    before_checkpoint(log.append, "with arguments")
    after_restore(lambda *, word: log.append(word), word="keyword")
    checkpoint_here(engine="simulate")
    assert log == ["with priority", "with arguments", "plain", "keyword"]
    plain()


def test_resource_is_held_weakly() -> None:
    """A resource that nothing else refers to is forgotten."""
    log: list[str] = []
    thing = register(Thing(log, "gone"))
    assert len(registry) == 1
    del thing
    gc.collect()
    assert len(registry) == 0
    checkpoint_here(engine="simulate")
    assert log == []


def test_unregister() -> None:
    """A hook or resource is taken back, once."""
    log: list[str] = []
    thing = register(Thing(log, "thing"))
    before_checkpoint(log.clear)
    unregister(thing)
    after_restore(test_unregister)
    unregister(test_unregister)
    with pytest.raises(ValueError, match="is not registered"):
        unregister(thing)
    checkpoint_here(engine="simulate")
    assert log == []


@pytest.mark.parametrize("phase", [before_checkpoint, after_restore])
def test_registration_while_hooks_run_is_an_error(phase: object) -> None:
    """A hook that registers hooks is told so, and the registry is usable afterwards."""

    def late() -> None:
        before_checkpoint(print)

    phase(late)  # type: ignore[operator]
    with pytest.raises(HookError, match="cannot be registered or unregistered while checkpoint hooks run"):
        checkpoint_here(engine="simulate")
    unregister(late)
    before_checkpoint(str)


def test_not_a_hook() -> None:
    """What cannot be a hook or resource is refused at once."""
    with pytest.raises(TypeError, match="must be callable"):
        before_checkpoint(42)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="lacks before_checkpoint"):
        register(object())  # type: ignore[type-var]


def test_async_hooks_without_a_loop() -> None:
    """Async hooks of a plain program run in a loop of their own."""
    log: list[str] = []

    @before_checkpoint
    async def before() -> None:
        log.append("before")

    with checkpoint(engine="simulate"):
        pass
    assert log == ["before"]
    unregister(before)
