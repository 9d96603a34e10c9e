"""Learn the working set of a snapshot from trial runs of copies."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from libcriu_py.copies.order import HOLD, Order
from libcriu_py.copies.process import RestoredProcess
from libcriu_py.copies.restore import make_request
from libcriu_py.errors import SnapshotError
from libcriu_py.linux import written_pages
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.memory import working_set
from libcriu_py.memory.memory import PAGE
from libcriu_py.privilege.mode import Privilege
from libcriu_py.snapshot import sums
from libcriu_py.snapshot.identity import refuse_mismatches
from libcriu_py.snapshot.manifest import WORKING_SET, Snapshot, refuse_native, write_records
from libcriu_py.snapshot.staging import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.memory.working_set import Written


def learn(
    path: str | os.PathLike[str], runs: Sequence[Sequence[str]], *, mode: Privilege | str | None = None
) -> dict[str, Any]:
    """
    Run copies of a snapshot, and make later copies copy all pages at their start that every run has written to.

    The old snapshot stays in place until a new one replaces it in one step.

    Args:
        path: The snapshot.
        runs: The arguments of each run, which uses our stdio.
        mode: Privilege mode; None picks the first that works.

    Returns:
        The manifest's entry for the working set.

    Raises:
        SnapshotError: Copies do not map the snapshot's memory, or a run failed.
        OSError: A copy cannot be observed, or the snapshot cannot be written.
    """
    snapshot = _open(path)
    with replacing(snapshot, WORKING_SET) as scratch:
        # Restore from a snapshot without a working set: pages copied ahead would look as if the program wrote to them.
        _write_records(snapshot, scratch)
        bare = Snapshot.open(scratch)
        written = working_set.common([_observe(bare, argv, mode) for argv in runs])
        ranges = working_set.choose(written)
        working_set.write(os.path.join(scratch, WORKING_SET), ranges)
        described = {
            "runs": [list(argv) for argv in runs],
            "bytes": sum(pages.count(1) for pages in written.values()) * PAGE,
            "ahead": sum(item.pages for item in ranges) * PAGE,
            "huge": sum(item.pages for item in ranges if item.huge) * PAGE,
        }
        _write_records(snapshot, scratch, described)
    return described


def _open(path: str | os.PathLike[str]) -> Snapshot:
    """Open a snapshot, and refuse one without mapped memory."""
    snapshot = Snapshot.open(path)
    refuse_native(snapshot, "what copies write to is learned for snapshots of criu only (--engine criu)")
    if snapshot.memory_key is None:
        message = f"the copies of {path} map no memory, so learning what they write to gains nothing"
        raise SnapshotError(message)
    refuse_mismatches(snapshot)
    return snapshot


def _write_records(snapshot: Snapshot, directory: str, described: Mapping[str, Any] | None = None) -> None:
    """Write record and manifest of a scratch copy: those of the snapshot, with this working set or none."""
    # The linked files keep their digests, so that a damaged one is not taken for sound.
    files = {name: entry for name, entry in snapshot.files.items() if name != WORKING_SET}
    memory = {name: value for name, value in snapshot.manifest["memory"].items() if name != "working_set"}
    if described is not None:
        files[WORKING_SET] = sums.entry(os.path.join(directory, WORKING_SET))
        memory["working_set"] = described
    write_records(directory, snapshot.launch, {**snapshot.manifest, "memory": memory}, dict(sorted(files.items())))


def _observe(snapshot: Snapshot, argv: Sequence[str], mode: Privilege | str | None) -> Written:
    """Run a copy, and return the pages that it has written to."""
    request = make_request(snapshot.path, argv, env=None, cwd=None, main=None)
    order = Order(snapshot.path, request.encode(), mode=Privilege.of(mode), flags=HOLD)
    process = RestoredProcess(order, argv, streams=(None, None, None))
    with process:
        try:
            files = [os.path.join(snapshot.path, part.file) for part in snapshot.memory_files]
            written = _mapped_areas(process.pid, {os.stat(file).st_ino for file in files})
            written_pages.observe(process.pid)
            # The copy does nothing before its release, so no write is missed.
            process.release()
            written_pages.note_until_end(process.pid, written)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
    if status != 0 or process.handover_error is not None:
        message = f"the trial run of {snapshot.command} ended with status {status}; nothing was changed"
        raise SnapshotError(message)
    return written


def _mapped_areas(pid: int, inodes: set[int]) -> Written:
    """Find where the snapshot's memory is mapped, by the inode numbers of its files, whose paths may differ."""
    ours = (mapped for mapped in mapped_ranges(pid) if mapped.inode in inodes)
    return {(mapped.start, mapped.end): bytearray(mapped.size // PAGE) for mapped in ours}
