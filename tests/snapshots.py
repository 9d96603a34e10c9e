"""Snapshots without images, for tests of what is read of them before a restore."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from libcriu_py.snapshot import identity, record as launch_record
from libcriu_py.snapshot.manifest import SLOTS, python_identity, write_records
from libcriu_py.snapshot.record import LAUNCH, MANIFEST, Launch

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST_OF_HERE = {
    "machine": identity.machine_identity(),
    "python": python_identity(),
    "criu_version": "4.2",
    "created": 0.0,
}


def launch_of_here(**changes: Any) -> Launch:
    """Return what a dump of this process would have recorded, with these changes."""
    launch = Launch(
        command=("/bin/echo", "conventionally"),
        program=None,
        arch=os.uname().machine,
        cpu_flags=identity.cpu_flags(),
        variables={},
        uid=os.geteuid(),
        gid=os.getegid(),
        groups=(),
        capabilities=0,
        reduced_bounding=False,
        mode=None,
        session_leader=False,
        slots=tuple(f"nowhere/{name}" for name in SLOTS),
        images_key="nowhere/images",
        restore_options={},
        pids=(4_000_000,),
    )
    return launch._replace(**changes)


def write_snapshot(directory: Path, launch: Launch | bytes) -> Path:
    """Make a snapshot directory that has a record and a manifest only."""
    directory.mkdir(mode=0o700)
    data = launch if isinstance(launch, bytes) else launch_record.encode(launch)
    for name, content in ((LAUNCH, data), (MANIFEST, json.dumps(MANIFEST_OF_HERE).encode())):
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(content)
    return directory


def reseal(directory: Path) -> None:
    """Take new sums of a snapshot whose files a test has changed on purpose, for what is behind them to be reached."""
    launch = launch_record.decode((directory / LAUNCH).read_bytes())
    write_records(str(directory), launch, json.loads((directory / MANIFEST).read_text(encoding="ascii")))
    owner = directory.stat()
    for name in (LAUNCH, MANIFEST):
        os.chown(directory / name, owner.st_uid, owner.st_gid)
