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
    A copy that reads from the socket of its request, with /dev/null for its streams.

    Its supervisor kills it when nobody holds the supervisor's channel any more: the pool first, and the launcher
    that it is given to.

    Thread safety: none.
    """

    def __init__(self, restored: Status, launcher: subprocess.Popen[bytes]) -> None:
        """Take over the descriptors of a restore; `restore_copy` is the way to make one."""
        self.pid = restored.value
        """Its pid, as seen from here."""
        self._pidfd, self._channel, self._control = restored.fds
        self.launcher = Launcher(launcher)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the copy stops or ends."""
        return self._channel

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What a launcher needs: the channel, the socket of the hand-over, the pidfd."""
        return self._channel, self._control, self._pidfd

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is known against it: news of an idle copy are bad."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        return not poller.poll(0)

    def memory(self) -> int:
        """
        Return the memory that it takes, in bytes: its proportional set size, or its resident one where that is hidden.

        Returns:
            The size; 0 when it has ended.
        """
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
        """Let it fetch the pages of a file, while it waits."""
        with contextlib.suppress(OSError):  # it has ended, which is told elsewhere
            sockets.send_fds(self._control, [pages], PAGES)

    def mark_taken(self) -> None:
        """Tell its supervisor that it has been given away: what it leaves running is not to end with it any more."""
        with contextlib.suppress(OSError):  # it has ended
            sockets.send(self._channel, b"G")

    def close(self) -> None:
        """Close what the pool holds of it, which ends it, and all of its processes, unless it was given away."""
        for fd in self.descriptors:
            os.close(fd)


class Launcher:
    """
    The launcher of a copy, a child of this process, which ends after the supervisor of the copy.

    Thread safety: none.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Watch it."""
        self._process = process
        self._pidfd = os.pidfd_open(process.pid)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when it ends."""
        return self._pidfd

    def reap(self) -> None:
        """Wait for its end."""
        self._process.wait()
        os.close(self._pidfd)

    def leave_running(self, patience: float) -> None:
        """
        Let a copy in use go on, and reap its launcher later.

        Args:
            patience: Seconds in which it may end now.
        """
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if poller.poll(patience * 1000):
            self.reap()
            return
        os.close(self._pidfd)
        self._process.returncode = 0  # or it would be missed
        reap_later(self._process.pid)


def restore_copy(snapshot: Snapshot, mode: Privilege) -> WaitingCopy:
    """
    Restore a copy that waits.

    Args:
        snapshot: What to restore.
        mode: How that is allowed.

    Raises:
        CriuError: It cannot be restored.
    """
    # What it is asked for comes later, from whoever takes it.
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
