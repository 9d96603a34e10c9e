"""
What must match the dump for a safe restore, compared without starting anything.

CRIU checks some of it late and with its own messages, and misses the rest: a file of the same size with other content,
a processor without an instruction that the program has chosen to use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import SnapshotMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from libcriu_py.snapshot.manifest import Snapshot
    from libcriu_py.snapshot.record import ComparedFile, Launch

_ANEW, _REPLACE = "make the snapshot anew", "make the snapshot anew (--replace)"
_SECOND = 10**9
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
    """Return the differences from the machine, user and files of the dump."""
    launch = snapshot.launch
    return [
        *_machine(launch, snapshot.manifest["machine"].get("kernel")),
        *_identity(launch),
        *_snapshot_files(snapshot),
        *_place(snapshot),
        *_files(launch.mapped, "which the program has mapped", "", _ANEW),
        *_files(launch.sources, "whose code the snapshot holds", f"; put it back, or {_REPLACE}", _REPLACE),
    ]


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


def _machine(launch: Launch, kernel: str | None) -> Iterator[Mismatch]:
    system = os.uname()
    if system.machine != launch.arch:
        yield Mismatch(f"the snapshot is for {launch.arch} processors, this is a {system.machine}", fatal=True)
        return
    here = set(cpu_flags())
    missing = [flag for flag in launch.cpu_flags if flag not in here]
    if missing:
        yield Mismatch(
            f"this processor lacks {' '.join(missing)}, which the program may have chosen to use; "
            "make the snapshot on the oldest of your machines",
            fatal=True,
        )
    if kernel is not None and system.release != kernel:
        yield Mismatch(f"the kernel is {system.release}, at the dump it was {kernel}", fatal=False)


def _identity(launch: Launch) -> Iterator[Mismatch]:
    me = os.geteuid()
    if me == 0:
        return  # root can become any user; `privilege` checks whether this root can
    if me != launch.uid:
        yield Mismatch(f"the program ran as uid {launch.uid}, this is uid {me}", fatal=True)
    elif launch.gid != os.getegid():
        yield Mismatch(
            f"the program ran with gid {launch.gid}, this is gid {os.getegid()}; change it with newgrp or sg",
            fatal=True,
        )


def _snapshot_files(snapshot: Snapshot) -> Iterator[Mismatch]:
    for name, recorded in snapshot.launch.files.items():
        path = os.path.join(snapshot.path, name)
        try:
            size = os.stat(path).st_size
        except OSError as error:
            yield Mismatch(f"{path} cannot be read ({error.strerror}); make the snapshot anew", fatal=True)
            continue
        if size != recorded:
            yield Mismatch(f"{path} has {size} bytes instead of {recorded}; make the snapshot anew", fatal=True)


def _place(snapshot: Snapshot) -> Iterator[Mismatch]:
    if snapshot.launch.maps_code and os.statvfs(snapshot.path).f_flag & os.ST_NOEXEC:
        yield Mismatch(
            f"{snapshot.path} is on a file system that is mounted noexec, from which the code of libraries cannot be "
            "mapped; move it to another one",
            fatal=True,
        )


def _files(recorded: Iterable[ComparedFile], what: str, if_missing: str, if_changed: str) -> Iterator[Mismatch]:
    for entry in recorded:
        file = f"{entry.path}, {what},"
        try:
            status = os.stat(entry.path)
        except OSError as error:
            yield Mismatch(f"{file} is not there ({error.strerror}){if_missing}", fatal=True)
            continue
        # criu compares the mode of each file with that of the dump (`validate_file` in criu/files-reg.c).
        if entry.mode and status.st_mode != entry.mode:
            yield Mismatch(
                f"{file} has mode {status.st_mode & 0o7777:04o}, and at the dump {entry.mode & 0o7777:04o}; "
                f"chmod {entry.mode & 0o7777:04o} {entry.path}, or make the snapshot anew",
                fatal=True,
            )
        if _is_changed(status, entry):
            yield Mismatch(f"{file} was changed after the dump; {if_changed}", fatal=True)


def _is_changed(status: os.stat_result, entry: ComparedFile) -> bool:
    """Compare size and mtime; layers of container images keep whole seconds only."""
    now, then = status.st_mtime_ns, entry.mtime_ns
    return status.st_size != entry.size or now not in {then, then - then % _SECOND}
