"""The state of the original that its dump must not contain: put aside before it, restored after it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.dump import stdio
from libcriu_py.findings import shared_stdio
from libcriu_py.linux import processes, this_process

if TYPE_CHECKING:
    from libcriu_py.dump.stdio import Parking
    from libcriu_py.snapshot.staging import Staging


class Original:
    """Heap, working directory, standard streams and process group of the original."""

    def __init__(self, staging: Staging, *, ends: bool) -> None:
        # What they would do from here on, copies do too. Those that they start while they are stopped are none.
        self.stopped = processes.stop_descendants() if ends else []
        this_process.trim_heap()
        # criu needs the working directory at each restore: "/" always exists.
        cwd = _open_cwd()
        self.shared = shared_stdio.find(processes.processes())
        slots = [staging.slot(name) for name in ("stdin", "stdout", "stderr")]
        self._parking: Parking = stdio.Parking(slots, [] if cwd is None else [cwd])
        os.chdir("/")
        self._left_group = processes.leave_group()

    def restore(self, *, dumped: bool) -> None:
        """Restore the state from before the dump; descendants that have copies stay stopped."""
        if self._left_group:
            os.setpgid(0, 0)
        if not dumped:
            processes.resume(self.stopped)
        for fd in self._parking.end():
            os.fchdir(fd)
            os.close(fd)


def _open_cwd() -> int | None:
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
