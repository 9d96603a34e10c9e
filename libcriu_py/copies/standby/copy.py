"""One copy in a standby pool: restored, and waiting for its request."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from subprocess import DEVNULL
from typing import TYPE_CHECKING

from libcriu_py.copies.order import STANDBY, Order
from libcriu_py.copies.process import reap_later
from libcriu_py.linux import sockets
from libcriu_py.snapshot.request import PAGES

if TYPE_CHECKING:
    from libcriu_py.copies.order import Status
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.snapshot.manifest import Snapshot


class WaitingCopy:
    """
    A copy that waits on its hand-over socket, with /dev/null for its streams.

    Its supervisor kills it once nobody holds the supervisor's channel: neither the pool nor a launcher that took it.

    Thread safety: none.
    """

    def __init__(self, restored: Status, launcher: subprocess.Popen[bytes]) -> None:
        """Take over the descriptors of a restore; call `restore_copy` instead of this."""
        self.pid = restored.value
        """Its pid in the pool's pid namespace."""
        self._pidfd, self._channel, self._control = restored.fds
        self.launcher = Launcher(launcher)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the copy stops or ends."""
        return self._channel

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What a launcher needs: the supervisor's channel, the hand-over socket, the pidfd."""
        return self._channel, self._control, self._pidfd

    @property
    def is_waiting(self) -> bool:
        """Whether it can be taken: any event from an idle copy means that it is unusable."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return not poller.poll(0)

    def memory(self) -> int:
        """Return its proportional set size in bytes, or its resident set size if that is hidden; 0 if it has ended."""
        for name, field in (("smaps_rollup", b"Pss:"), ("status", b"VmRSS:")):
            try:
                with open(f"/proc/{self.pid}/{name}", "rb") as file:
                    return next((int(line.split()[1]) * 1024 for line in file if line.startswith(field)), 0)
            except PermissionError:
                continue
            except (FileNotFoundError, ProcessLookupError):
                break
        return 0

    def fetch(self, pages: int) -> None:
        """Let it prefetch the pages that a file lists, while it waits."""
        with contextlib.suppress(OSError):  # it has ended, which its channel reports
            sockets.send_fds(self._control, [pages], PAGES)

    def close(self) -> None:
        """Close the pool's descriptors of it, which ends it and all of its processes unless a launcher took it."""
        for fd in self.descriptors:
            os.close(fd)


class Launcher:
    """
    The launcher of a copy: a child of this process that ends after the copy's supervisor.

    Thread safety: none.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Open a pidfd of it."""
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)

    def fileno(self) -> int:
        """Return its pidfd, which becomes readable when it ends."""
        return self._pidfd

    def reap(self) -> None:
        """Wait for its end."""
        self._process.wait()
        os.close(self._pidfd)

    def leave_running(self, patience: float) -> None:
        """
        Leave a copy in use running, and reap its launcher later.

        Args:
            patience: Seconds to wait for the launcher to end.
        """
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if poller.poll(patience * 1000):
            self.reap()
            return
        os.close(self._pidfd)
        self._process.returncode = 0  # or Popen would warn that it still runs
        reap_later(self._process.pid)


def restore_copy(snapshot: Snapshot, mode: Privilege) -> WaitingCopy:
    """
    Restore a copy that waits for its request.

    Args:
        snapshot: What to restore.
        mode: Privilege mode.

    Raises:
        CriuError: It cannot be restored.
    """
    # The launcher that takes it sends the request.
    order = Order(snapshot.path, b"\0", mode=mode, flags=STANDBY)
    try:
        with order:
            launcher = subprocess.Popen(
                order.command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, pass_fds=order.descriptors
            )
        try:
            restored = order.await_restored()
        except BaseException:
            launcher.kill()
            launcher.wait()
            raise
    finally:
        os.close(order.status)
    return WaitingCopy(restored, launcher)
