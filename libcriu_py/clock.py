"""
Monotonic clocks that do not count the time between dump and restore.

In a copy, `time.monotonic()` continues from the dump: a native copy replaces Python's own, and criu makes a time
namespace where it may: as root, and in a user namespace. With a file-capable criu, or on a kernel without time
namespaces, it is the machine's clock, which counts the downtime, and goes backwards after a reboot. `monotonic()` here
never does either.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_NANOSECONDS = 1_000_000_000
_monotonic, _monotonic_ns = time.monotonic, time.monotonic_ns
_jump_ns = 0
_continues = False
_downtime = 0.0
_later: list[Callable[[], tuple[float, float]]] = []
"""What returns the arguments of `add_jump`, once somebody asks."""


def monotonic() -> float:
    """Return `time.monotonic()` without the time between dump and restore, in seconds."""
    return monotonic_ns() / _NANOSECONDS


def monotonic_ns() -> int:
    """Return `time.monotonic_ns()` without the time between dump and restore, in nanoseconds."""
    if _later:
        _settle()
    return _monotonic_ns() - _jump_ns


def downtime() -> float:
    """Return the seconds that this process has spent in snapshots, by the wall clock; 0 if it was never restored."""
    if _later:
        _settle()
    return _downtime


def add_jump_later(measure: Callable[[], tuple[float, float]] | None) -> None:
    """
    Have copies call `add_jump` when somebody asks, with what a function returns then.

    Args:
        measure: The function; None if there is no copy of this process, or it calls `add_jump` itself.
    """
    _later[:] = [] if measure is None else [measure]


def _settle() -> None:
    add_jump(*_later.pop()())


def compensate() -> None:
    """
    Replace `time.monotonic` and `time.monotonic_ns` by these clocks.

    Code that has imported the functions themselves (`from time import monotonic`) keeps the kernel's clock.
    """
    time.monotonic, time.monotonic_ns = monotonic, monotonic_ns


def is_compensated() -> bool:
    """Return whether `compensate` was called."""
    return time.monotonic is monotonic


def builtin(name: str) -> object:
    """Return Python's own function of this name, which `compensate` may have replaced; None if it replaces no such."""
    return {"monotonic": _monotonic, "monotonic_ns": _monotonic_ns}.get(name)


def continues() -> bool:
    """Return whether monotonic clocks of the next dump's copies continue."""
    return _continues


def set_continues(wanted: bool) -> None:  # noqa: FBT001 - a setter
    """Set whether monotonic clocks of the next dump's copies continue; the built-in resource "clock" calls this."""
    global _continues
    _continues = wanted


def readings_for_copies() -> tuple[int, int]:
    """
    Return the nanoseconds from which the monotonic and boot-time clocks of copies continue; 0 for the machine's clocks.

    Call this after the dump, so that no reading in the image is later.
    """
    if not _continues:
        return 0, 0
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def add_jump(seconds: float, away: float) -> None:
    """
    Record a restore; the built-in resource "clock" calls this.

    Args:
        seconds: How far the kernel's monotonic clock has advanced since the dump.
        away: Seconds since the dump by the wall clock.
    """
    global _jump_ns, _downtime
    _jump_ns += round(seconds * _NANOSECONDS)
    _downtime += away
