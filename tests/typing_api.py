"""User-style code, checked by mypy in strict mode and never run: what the package promises to type checkers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from libcriu_py import (
    PIPE,
    Criu,
    DumpOptions,
    DumpOutcome,
    InheritFd,
    OperationRefused,
    Outcome,
    Privilege,
    Program,
    Resource,
    RestoredProcess,
    RestoreOptions,
    RestorePool,
    Snapshot,
    after_restore,
    allow_checkpoint,
    before_checkpoint,
    checkpoint,
    checkpoint_here,
    register,
    restore,
    restore_async,
    restore_many,
    unregister,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Pool(Resource):
    """A resource by inheritance."""

    def before_checkpoint(self) -> None:
        """Close connections."""

    async def after_restore(self) -> None:
        """Open them again."""


@before_checkpoint
def close_files() -> None:
    """Stay a function with its own type."""


@after_restore(priority=3)
async def reopen_files(count: int = 1) -> int:
    """Stay a function with its own type."""
    return count


@checkpoint("snap", then="continue")
def warm_up(size: int) -> list[int]:
    """Keep the signature under the decorator."""
    return list(range(size))


def self_checkpoint() -> int:
    """Use the facade."""
    pool: Pool = register(Pool(), priority=1)
    with checkpoint("snap", engine="simulate", options={"tcp_close": True}) as snap:
        warm: list[int] = warm_up(3)
    if snap.restored and snap.request is not None:
        arguments: list[bytes] = snap.request.argv
        return len(arguments)
    allow_checkpoint("snap", then="continue", memory="map").revoke()
    checkpoint_here("snap", hooklimit=3.0)  # type: ignore[call-arg]
    allow_checkpoint("snap", then="stop")  # type: ignore[arg-type]
    outcome: Outcome | None = checkpoint_here("snap", program=Program("module", "http.server")).outcome
    unregister(pool)
    close_files()
    downtime: float | None = snap.downtime
    return len(warm) if outcome is Outcome.CONTINUED and downtime is None else snap.stats.get("pages_written", 0)


def start_copies(arguments: Sequence[str]) -> int:
    """Use restored processes."""
    snapshot = Snapshot.open("snap")
    if any(mismatch.fatal for mismatch in snapshot.check()):
        return 1
    with restore(snapshot, arguments, stdout=PIPE, mode=Privilege.ROOTLESS, encoding="utf-8") as process:
        process.send_signal(15)
        status: int | None = process.poll()
        out, err = process.communicate(timeout=3.0)
        print(out, err)
    copies: list[RestoredProcess] = restore(snapshot, arguments, n=5, stdout=PIPE)
    others: list[RestoredProcess] = restore_many(snapshot, [["a"], ["b"]], wait_ready=True)
    for copy in [*copies, *others]:
        copy.wait()
    return process.wait() if status is None else status


async def start_copies_async() -> int:
    """Use restored processes in asyncio."""
    for copy in await restore_async("snap", n=2):
        await copy.wait()
    async with RestorePool("snap", size=2, stderr=PIPE) as pool:
        await (await pool.take()).wait()
    async with await restore_async("snap", ["a"], wait_ready=True) as process:
        return await process.wait()


def binding() -> bool:
    """Use libcriu."""
    criu = Criu()
    options = DumpOptions(images_dir="images", pid=1, shell_job=True, external=["mnt[]"], leave_running=True)
    try:
        outcome: DumpOutcome = criu.dump(options)
        pid: int = criu.restore_child(RestoreOptions(images_dir="images", inherit_fds=[InheritFd(3, "tmp/file")]))
    except OperationRefused as error:
        reason: str = error.reason
        hint: str | None = error.hint
        sys.exit(hint or reason)
    return outcome is DumpOutcome.DUMPED and pid > 0
