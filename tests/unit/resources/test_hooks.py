"""Critical sections, time limits of hooks and their report, and built-in resources in a rehearsal."""

from __future__ import annotations

import asyncio
import random
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from libcriu_py import CheckpointError, HookError, after_restore, before_checkpoint, checkpoint, no_checkpoint
from libcriu_py.hooks import no_checkpoint as critical
from libcriu_py.hooks.registry import registry
from libcriu_py.program import seeding
from libcriu_py.resources import KINDS, BuiltIns

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def fresh_registry() -> Iterator[None]:
    """Run each test with a registry without entries, and restore `random`."""
    kept = registry._entries
    registry._entries = []
    yield
    registry._entries = kept
    seeding.unwatch()


def rehearse(**settings: object) -> object:
    """Take a checkpoint without CRIU."""
    snap = checkpoint("unused", engine="simulate", **settings)  # type: ignore[arg-type]
    with snap:
        pass
    return snap


def test_checkpoint_waits_for_critical_sections() -> None:
    """A checkpoint is taken only when the other thread has left its section, and none is entered meanwhile."""
    order: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with no_checkpoint():
            inside.set()
            leave.wait()
            order.append("left")

    def release() -> None:
        order.append("asked")
        leave.set()

    worker = threading.Thread(target=work)
    worker.start()
    inside.wait()
    timer = threading.Timer(0.1, release)
    timer.start()
    before_checkpoint(order.append, "taken")
    rehearse()
    worker.join()
    timer.join()
    assert order == ["asked", "left", "taken"]


def test_checkpoint_inside_a_critical_section() -> None:
    """The block's own checkpoint is refused at once, and works after it."""
    with pytest.raises(CheckpointError, match="inside `with no_checkpoint"), no_checkpoint():
        rehearse()
    rehearse()


def test_thread_that_stays_in_its_section_is_named() -> None:
    """After its time the checkpoint names the thread and where it is."""
    inside, leave = threading.Event(), threading.Event()

    def stubborn() -> None:
        with no_checkpoint():
            inside.set()
            leave.wait()

    worker = threading.Thread(target=stubborn, name="stubborn-one")
    worker.start()
    inside.wait()
    with pytest.raises(CheckpointError, match=r"thread stubborn-one at .*wait"):
        critical.begin(0.05)
    leave.set()
    worker.join()
    rehearse()


@pytest.mark.forked
def test_slow_hook_is_interrupted() -> None:
    """A hook that takes too long is interrupted and named, and the alarm of the program goes on."""

    def slow() -> None:
        time.sleep(60)

    rang: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, _: rang.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    before_checkpoint(slow)
    with pytest.raises(HookError, match=r"slow failed: TimeoutError: it took longer than 0.1 s"):
        rehearse(hook_limit=0.1)
    while not rang:
        select.poll().poll(10)  # pause() would wait for ever for an alarm that came just before it
    assert rang == [signal.SIGALRM]


def test_slow_async_hook_is_interrupted() -> None:
    """So is an async one."""

    async def slow() -> None:
        await asyncio.sleep(60)

    after_restore(slow)
    with pytest.raises(HookError, match="slow failed: TimeoutError"):
        rehearse(hook_limit=0.5)


def test_report_of_timings() -> None:
    """The checkpoint tells how long each hook and each built-in resource took."""
    before_checkpoint(time.sleep, 0.02)
    after_restore(len, "")
    snap = rehearse()
    timings = {(timing.name, timing.when): timing.seconds for timing in snap.timings}  # type: ignore[attr-defined]
    assert timings["time.sleep", "before"] >= 0.02
    assert ("builtins.len", "after") in timings
    assert ("clock", "before") in timings


def test_unknown_resource() -> None:
    """A wrong name is refused, with the right ones."""
    with pytest.raises(ValueError, match=r"unknown resources: randoom; there are: .*random"):
        checkpoint("unused", engine="simulate", resources={"randoom": False})


def test_switches_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable goes before the program's settings."""
    monkeypatch.setenv("LIBCRIU_PY_RESOURCES", "-random, clock")
    built_ins = BuiltIns({"random": True, "clock": False})
    built_ins.find()
    names = [name for name, _, _ in built_ins.before_dump()]
    assert "random" not in names
    assert "clock" in names


def test_every_resource_is_there() -> None:
    """Each name leads to a class that is documented."""
    from importlib import import_module

    for name, kind in KINDS.items():
        if not kind.libraries or name in {"random", "ssl", "uuid", "tempfile", "logging"}:
            made = getattr(import_module(f"libcriu_py.resources.{kind.module}"), kind.class_name)
            assert made.__doc__, name


def test_seeds_are_told_apart() -> None:
    """What is seeded while that is watched counts as seeded on purpose, until it is seeded from the kernel again."""
    seeding.watch()
    drawn, seeded = random.Random(), random.Random(1)
    assert not seeding.is_seeded(drawn)
    assert seeding.is_seeded(seeded)
    seeded.seed()
    assert not seeding.is_seeded(seeded)
    seeded.setstate(drawn.getstate())
    assert seeding.is_seeded(seeded)


def test_rehearsal_leaves_random_alone() -> None:
    """The original goes on with its sequence."""
    state = random.getstate()
    rehearse()
    assert random.getstate() == state
