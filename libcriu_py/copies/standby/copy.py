"""One copy in a standby pool: restored, and waiting for its request."""

from __future__ import annotations

import contextlib
import os
import select
from typing import TYPE_CHECKING

from libcriu_py.copies.process import linger
from libcriu_py.copies.restore import bring_up, refuse_mismatches
from libcriu_py.copies.streams import DEVNULL, Streams
from libcriu_py.errors import RestoreError
from libcriu_py.linux import support
from libcriu_py.snapshot.request import PAGES

if TYPE_CHECKING:
    from libcriu_py.copies.standby.taking import Launched
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.snapshot.manifest import Snapshot


class WaitingCopy:
    """
    A copy that reads from the socket of its request, with /dev/null for its streams.

    Its supervisor kills it when nobody holds the supervisor's channel any more: the pool first, and the launcher
    that it is given to.

    Thread safety: none.
    """

    def __init__(self, launched: Launched) -> None:
        """Take over the descriptors of a restore; `restore_copy` is the way to make one."""
        if launched.supervisor is None:
            message = "this copy is of another pool, which has to reap it"
            raise RestoreError(message)
        self._launched = launched
        self.supervisor = Supervisor(launched.supervisor)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the copy stops or ends."""
        return self._launched.channel

    @property
    def pid(self) -> int:
        """Its pid, as seen from here."""
        return self._launched.pid

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What a launcher needs: the channel, the socket of the hand-over, the pidfd."""
        return self._launched[:3]

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is known against it: news of an idle copy are bad."""
        poller = select.poll()
        poller.register(self._launched.channel, select.POLLIN)
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
            support.send_fds(self._launched.control, [pages], PAGES)

    def given(self) -> None:
        """Tell its supervisor that it has been given away: what it leaves running is not to end with it any more."""
        with contextlib.suppress(OSError):  # it has ended
            support.send(self._launched.channel, b"G")

    def let_go(self) -> None:
        """Close what the pool holds of it, which ends it, and all of its processes, unless it was given away."""
        for fd in self.descriptors:
            os.close(fd)


class Supervisor:
    """
    The parent of a copy, a child of this process.

    Thread safety: none.
    """

    def __init__(self, pid: int) -> None:
        """Watch a child."""
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when it ends."""
        return self._pidfd

    def reap(self) -> None:
        """Wait for its end."""
        support.reap(self.pid, wait=True)
        os.close(self._pidfd)

    def leave(self, patience: float) -> None:
        """
        Let a copy in use go on, and reap its supervisor later.

        Args:
            patience: Seconds in which it may end now.
        """
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        if poller.poll(patience * 1000):
            self.reap()
            return
        os.close(self._pidfd)
        linger(self.pid)


def restore_copy(snapshot: Snapshot, mode: Privilege) -> WaitingCopy:
    """
    Restore a copy that waits.

    Args:
        snapshot: What to restore.
        mode: How that is allowed.

    Raises:
        CriuError: It cannot be restored.
    """
    refuse_mismatches(snapshot)
    streams = Streams(DEVNULL, DEVNULL, DEVNULL)
    try:
        flags = support.DIE_WITH_CALLER | support.STANDBY
        launched = bring_up(snapshot, streams.given, mode=mode, flags=flags)
    finally:
        streams.close()
    try:
        return WaitingCopy(launched)
    except BaseException:
        for fd in launched[:3]:
            os.close(fd)
        raise
