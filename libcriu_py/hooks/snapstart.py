"""
Have AWS Lambda SnapStart run the hooks that are registered here: a library registers them once, for both.

The other way round, `resources.snapstart` runs at a checkpoint what was registered with SnapStart.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from libcriu_py.hooks import no_checkpoint, runner
from libcriu_py.hooks.lifecycle import drive
from libcriu_py.hooks.registry import registry
from libcriu_py.hooks.thread_stop import ThreadStop

if TYPE_CHECKING:
    from libcriu_py.hooks.registry import Entry


def join() -> None:
    """Register with SnapStart, if its package is there."""
    with contextlib.suppress(ModuleNotFoundError):
        from snapshot_restore_py import register_after_restore, register_before_snapshot

        entries: list[Entry] = []
        register_before_snapshot(before_snapshot, entries)
        register_after_restore(after_restore, entries)


def _conditions() -> runner.HookRun:
    return runner.HookRun(in_loop=False, limit=None, wait=no_checkpoint.WAIT, timings=[], thread_stop=ThreadStop())


def before_snapshot(entries: list[Entry]) -> None:
    """Run the before-hooks, the single-threaded ones last; no thread is stopped, as the machine is, later."""
    no_checkpoint.begin()
    try:
        entries[:] = sorted(registry.begin(), key=lambda entry: not entry.single_threaded)
        drive(runner.run_befores(tuple(entries), _conditions()))
    except BaseException:
        _end()
        raise


def after_restore(entries: list[Entry]) -> None:
    """Run the after-hooks, the single-threaded ones first."""
    drive(_run_afters(tuple(entries)))


async def _run_afters(entries: tuple[Entry, ...]) -> None:
    errors = await runner.run_afters(entries, _conditions())
    _end()
    runner.raise_all(errors, "after-restore hooks failed")


def _end() -> None:
    no_checkpoint.end()
    registry.end()
