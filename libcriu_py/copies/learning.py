"""Learning the working set of a snapshot from copies that are run for that purpose."""

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
from libcriu_py.snapshot.identity import refuse_mismatches
from libcriu_py.snapshot.manifest import WORKING_SET, Snapshot, file_entry, write_records
from libcriu_py.snapshot.staging import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.memory.working_set import Written


def learn(
    path: str | os.PathLike[str], runs: Sequence[Sequence[str]], *, mode: Privilege | str | None = None
) -> dict[str, Any]:
    """
    Run copies of a snapshot, and have later ones copy at once what all of these have written to.

    The snapshot stays as it is until a new one takes its place in one step.

    Args:
        path: The snapshot.
        runs: The arguments of each run; its stdio is ours.
        mode: How the restores are allowed; None decides.

    Returns:
        What the manifest says of the working set.

    Raises:
        SnapshotError: The memory of its copies is not mapped, or a run failed.
        OSError: A copy cannot be observed, or the snapshot cannot be written.
    """
    snapshot = _open(path)
    with replacing(snapshot, WORKING_SET) as scratch:
        # A snapshot of its own, in which no page is copied ahead, which would look as if the program had written to it.
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
    """Open a snapshot of which something can be learned."""
    snapshot = Snapshot.open(path)
    if snapshot.memory_key is None:
        message = f"the copies of {path} map no memory, so that nothing is gained by knowing what they write to"
        raise SnapshotError(message)
    refuse_mismatches(snapshot)
    return snapshot


def _write_records(snapshot: Snapshot, directory: str, described: Mapping[str, Any] | None = None) -> None:
    """Write record and manifest of such a directory: those of the snapshot, with this working set, or none."""
    # The other files are linked, and keep their digests: one that was damaged must not be taken for sound.
    files = {name: entry for name, entry in snapshot.files.items() if name != WORKING_SET}
    memory = {name: value for name, value in snapshot.manifest["memory"].items() if name != "working_set"}
    if described is not None:
        files[WORKING_SET] = file_entry(os.path.join(directory, WORKING_SET))
        memory["working_set"] = described
    write_records(directory, snapshot.launch, {**snapshot.manifest, "memory": memory}, dict(sorted(files.items())))


def _observe(snapshot: Snapshot, argv: Sequence[str], mode: Privilege | str | None) -> Written:
    """Run a copy, and give what it has written to."""
    request = make_request(snapshot.path, argv, env=None, cwd=None, main=None)
    order = Order(snapshot.path, request.encode(), mode=Privilege.of(mode), flags=HOLD)
    process = RestoredProcess(order, argv, streams=(None, None, None))
    with process:
        try:
            files = [os.path.join(snapshot.path, part.file) for part in snapshot.memory_files]
            written = _mapped_areas(process.pid, {os.stat(file).st_ino for file in files})
            written_pages.observe(process.pid)
            # Before this it does nothing: all that it writes is seen.
            process.release()
            written_pages.note_until_end(process.pid, written)
        except BaseException:
            process.kill()
            raise
        status = process.wait()
    if status != 0 or process.handover_error is not None:
        message = f"the run of {snapshot.command} to learn from ended with status {status}; nothing was changed"
        raise SnapshotError(message)
    return written


def _mapped_areas(pid: int, inodes: set[int]) -> Written:
    """Find where the snapshot's memory is mapped: by the numbers of its files, which may be of any path."""
    ours = (mapped for mapped in mapped_ranges(pid) if mapped.inode in inodes)
    return {(mapped.start, mapped.end): bytearray(mapped.size // PAGE) for mapped in ours}
