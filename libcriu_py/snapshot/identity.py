"""
What must be as it was at the dump for a restore to be sound, compared without starting anything.

CRIU checks some of it itself, late and in its own words; some of it (a file of the same size with
other content, a processor without an instruction that the program has already chosen to use) it
does not see.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import SnapshotMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from libcriu_py.snapshot.manifest import Snapshot
    from libcriu_py.snapshot.record import ComparedFile, Launch

_SECOND = 10**9
_FIRST_PROCESSOR = 8192
"""Bytes of /proc/cpuinfo that hold its first processor; a read of all is slow on large machines."""


class Mismatch(NamedTuple):
    """One thing that is not as it was when the snapshot was made."""

    text: str
    fatal: bool
    """Whether a restore would fail, or not be sound."""


def cpu_flags() -> tuple[str, ...]:
    """Return the feature flags of the first processor, as the kernel names them, in its order."""
    with open("/proc/cpuinfo", "rb", buffering=0) as file:
        head = file.read(_FIRST_PROCESSOR)
    for line in head.split(b"\n"):
        name, _, value = line.partition(b":")
        if name.strip() in {b"flags", b"Features"}:
            return tuple(value.decode("ascii").split())
    return ()


def machine_identity() -> dict[str, object]:
    """Describe the machine and its kernel, but what a restore compares."""
    system = os.uname()
    return {
        "kernel": system.release,
        "hostname": system.nodename,
        "libc": os.confstr("CS_GNU_LIBC_VERSION"),
    }


def mismatches(snapshot: Snapshot) -> list[Mismatch]:
    """Name what differs from the machine, user and files of the dump."""
    launch = snapshot.launch
    return [
        *_machine(launch, snapshot.manifest["machine"].get("kernel")),
        *_identity(launch),
        *_snapshot_files(snapshot),
        *_place(snapshot),
        *_mapped(launch.mapped),
        *_sources(launch.sources),
    ]


def refuse_mismatches(snapshot: Snapshot) -> None:
    """
    Refuse a snapshot whose restore would fail or not be sound.

    Raises:
        SnapshotMismatch: With every reason.
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
        return  # root can become whoever the program was; whether this one can, `privilege` finds out
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


def _mapped(recorded: Iterable[ComparedFile]) -> Iterator[Mismatch]:
    for entry in recorded:
        path = entry.path
        try:
            status = os.stat(path)
        except OSError as error:
            yield Mismatch(f"{path}, which the program has mapped, is not there ({error.strerror})", fatal=True)
            continue
        # criu compares the mode of each file with that of the dump (`validate_file` in criu/files-reg.c).
        if entry.mode and status.st_mode != entry.mode:
            yield Mismatch(
                f"{path}, which the program has mapped, has mode {status.st_mode & 0o7777:04o}, and at the dump "
                f"{entry.mode & 0o7777:04o}; chmod {entry.mode & 0o7777:04o} {path}, or make the snapshot anew",
                fatal=True,
            )
        if _is_changed(status, entry):
            yield Mismatch(
                f"{path}, which the program has mapped, was changed after the dump; make the snapshot anew",
                fatal=True,
            )


def _sources(recorded: Iterable[ComparedFile]) -> Iterator[Mismatch]:
    for entry in recorded:
        path = entry.path
        try:
            status = os.stat(path)
        except OSError as error:
            yield Mismatch(
                f"{path}, whose code the snapshot holds, is not there ({error.strerror}); "
                "put it back, or make the snapshot anew (--replace)",
                fatal=True,
            )
            continue
        if _is_changed(status, entry):
            yield Mismatch(
                f"{path}, whose code the snapshot holds, was changed after the dump; "
                "make the snapshot anew (--replace)",
                fatal=True,
            )


def _is_changed(status: os.stat_result, entry: ComparedFile) -> bool:
    """Compare size and mtime; layers of container images keep no more of that than its second."""
    now, then = status.st_mtime_ns, entry.mtime_ns
    return status.st_size != entry.size or now not in {then, then - then % _SECOND}
