"""
Clocks of a program that may have been away.

In a copy `time.monotonic()` goes on from the dump, in a time namespace, where the restore may make one: as root and in
a user namespace. With a file-capable criu, or on a kernel without such namespaces, it is the machine's: it counts the
downtime, and after a reboot it goes backwards. `monotonic()` here never does either.
"""

from __future__ import annotations

import time

_NANOSECONDS = 1_000_000_000
_monotonic, _monotonic_ns = time.monotonic, time.monotonic_ns
_jump_ns = 0
_continues = False
_downtime = 0.0


def monotonic() -> float:
    """Return `time.monotonic()` without the time between dump and restore, in seconds."""
    return monotonic_ns() / _NANOSECONDS


def monotonic_ns() -> int:
    """Return `time.monotonic_ns()` without the time between dump and restore, in nanoseconds."""
    return _monotonic_ns() - _jump_ns


def downtime() -> float:
    """Return the seconds that this process has spent in snapshots, by the wall clock; 0 in one never restored."""
    return _downtime


def compensate() -> None:
    """
    Put these clocks in the place of `time.monotonic` and `time.monotonic_ns`.

    What has taken the functions themselves (`from time import monotonic`) goes on with the kernel's clock.
    """
    time.monotonic, time.monotonic_ns = monotonic, monotonic_ns


def is_compensated() -> bool:
    """Return whether `compensate` was called."""
    return time.monotonic is monotonic


def set_continues(wanted: bool) -> None:  # noqa: FBT001 - a setter
    """Say whether copies of the next dump have monotonic clocks that go on; called by the built-in resource "clock"."""
    global _continues
    _continues = wanted


def readings_for_copies() -> tuple[int, int]:
    """
    Return the readings, monotonic and since the boot, from which the clocks of copies go on; 0 for the machine's own.

    To be called after the dump: no reading in the image is later.
    """
    if not _continues:
        return 0, 0
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC), time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def add_jump(seconds: float, away: float) -> None:
    """
    Note a restore; called by the built-in resource "clock".

    Args:
        seconds: How far the kernel's monotonic clock has gone on since the dump.
        away: Seconds since the dump by the wall clock.
    """
    global _jump_ns, _downtime
    _jump_ns += round(seconds * _NANOSECONDS)
    _downtime += away
