"""Many copies of one snapshot at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from libcriu_py.copies.restore import restore
from libcriu_py.snapshot.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Unpack

    from libcriu_py.copies.process import RestoredProcess
    from libcriu_py.settings import Argument, RestoreSettings


def restore_many(
    dir: str | os.PathLike[str] | Snapshot,  # noqa: A002 - the name it has everywhere here
    argvs: Iterable[Sequence[Argument]],
    *,
    at_once: int | None = None,
    **settings: Unpack[RestoreSettings],
) -> list[RestoredProcess]:
    """
    Restore one copy for each list of arguments; `restore(dir, argv, n=5)` gives all the same.

    Args:
        dir: The snapshot, or its directory.
        argvs: The arguments of each copy.
        at_once: How many restores are under way at a time; None means as many as there are processors.
        settings: The other arguments of `restore`, the same for all.

    Returns:
        The processes, in the order of `argvs`.

    Raises:
        CriuError: A restore failed; the other copies have been killed.
    """
    snapshot = dir if isinstance(dir, Snapshot) else Snapshot.open(dir)

    def one(argv: Sequence[Argument]) -> RestoredProcess:
        return restore(snapshot, argv, **settings)

    with ThreadPoolExecutor(at_once or os.cpu_count() or 1) as threads:
        started = [threads.submit(one, argv) for argv in argvs]
    errors = [error for error in (future.exception() for future in started) if error is not None]
    if not errors:
        return [future.result() for future in started]
    for future in started:
        if future.exception() is None:
            with future.result() as process:
                process.kill()
    raise errors[0]
