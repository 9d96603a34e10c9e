"""
What must match the dump for a safe restore.

CRIU checks some of it late and with its own messages, and misses the rest: a file of the same size with other content,
a processor without an instruction that the program has chosen to use. The launcher compares it
(csrc/restore/compatibility.c).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import SnapshotMismatch

if TYPE_CHECKING:
    from libcriu_py.snapshot.manifest import Snapshot

_FIRST_PROCESSOR = 8192
"""Bytes of /proc/cpuinfo with the first processor; reading all of it is slow on large machines."""


class Mismatch(NamedTuple):
    """A difference from the dump."""

    text: str
    fatal: bool
    """Whether a restore would fail or be unsafe."""


def cpu_flags() -> tuple[str, ...]:
    """Return the feature flags of the first processor, named and ordered as in /proc/cpuinfo."""
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        head = file.read(_FIRST_PROCESSOR)
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if name.strip() in {b"flags", b"Features"}:
            return tuple(value.decode("ascii").split())
    return ()


def machine_identity() -> dict[str, object]:
    """Return what the manifest says of machine and kernel; the launch record has what a restore compares."""
    system = os.uname()
    return {
        "kernel": system.release,
        "hostname": system.nodename,
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
    }


def mismatches(snapshot: Snapshot) -> list[Mismatch]:
    """
    Return the differences from the machine, user and files of the dump.

    What makes a restore impossible is compared by the launcher, which refuses for the same reasons.

    Raises:
        CriuError: The launcher was not built, or cannot use the snapshot.
    """
    from libcriu_py.snapshot import launcher

    found = [Mismatch(text, fatal=True) for text in launcher.list_mismatches(snapshot.path)]
    then, now = snapshot.manifest["machine"].get("kernel"), os.uname().release
    if then not in {None, now}:
        found.append(Mismatch(f"the kernel is {now}, at the dump it was {then}", fatal=False))
    return found


def refuse_mismatches(snapshot: Snapshot) -> None:
    """
    Refuse a snapshot whose restore would fail or be unsafe.

    Raises:
        SnapshotMismatch: There is a fatal mismatch; the message has the first three.
    """
    reasons = [mismatch.text for mismatch in mismatches(snapshot) if mismatch.fatal]
    if reasons:
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        message = f"{snapshot.path} cannot be restored here: {'; '.join(reasons[:3])}{more}"
        raise SnapshotMismatch(message)
