"""
Taking a copy that waits in a standby pool, instead of restoring one.

A pool (`libcriu_py.copies.standby.pool`) holds copies whose hand-over has not begun, and gives one away with all that
its launcher would hold after a restore: its supervisor's channel, the socket for the request and its pidfd. From there
on the pool has no part in it. Where there is no pool, or it has nothing for us, the caller restores as always.

The pool is found by the identity of the snapshot's manifest, in this user's private directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux import support
from libcriu_py.linux.runtime_dir import private_directory
from libcriu_py.privilege.mode import Privilege
from libcriu_py.snapshot.manifest import MANIFEST
from libcriu_py.snapshot.request import check_count, send_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.settings import RestoreSettings
    from libcriu_py.snapshot.manifest import Snapshot
    from libcriu_py.snapshot.request import Request


class Launched(NamedTuple):
    """The descriptors of a restored process."""

    channel: int
    """Events of the supervisor."""
    control: int
    """The hand-over's socket."""
    pidfd: int
    pid: int
    """As seen from here; that of its own namespace if it has ended already."""
    supervisor: int | None
    """The pid of its parent, a child of ours; None for a copy of a pool, whose child that is."""


def socket_of(directory: str) -> str:
    """
    Return the path of the socket on which copies of a snapshot, as it is now, would wait.

    Raises:
        OSError: The snapshot is gone.
    """
    return os.path.join(private_directory(), support.standby_name(os.path.join(directory, MANIFEST)))


def take(snapshot: Snapshot, request: Request, stdio: Sequence[int], settings: RestoreSettings) -> Launched | None:
    """
    Take a copy of a snapshot, and hand a request over to it.

    Args:
        snapshot: What is to be restored.
        request: What is handed over.
        stdio: Three descriptors above 2.
        settings: Those of the restore; `pass_fds` and `mode` are used.

    Returns:
        The descriptors of the copy, or None where one has to be restored.
    """
    path = socket_of(snapshot.path)
    if not os.access(path, os.F_OK):
        return None
    mode = Privilege.of(settings["mode"]).value
    fds = support.take_standby(path, support.standby_description(mode))
    if fds is None:
        return None
    channel, control, pidfd = fds
    # The copy has a session of its own, and placeholders for streams.
    standard = {number: fd for number, fd in enumerate(stdio) if number not in request.closed}
    passed = [*standard.values(), *settings["pass_fds"]]
    try:
        check_count(passed, request.inherited)
        request = request._replace(pass_fds=[*standard, *request.pass_fds], pgid=None)
        send_request(control, request, passed)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return Launched(channel, control, pidfd, pid_of(pidfd) or 0, None)


def pid_of(pidfd: int) -> int | None:
    """Return the pid in our pid namespace (fs/pidfs.c, pidfd_show_fdinfo); None when it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as info:
        for line in info:
            if line.startswith(b"Pid:"):
                pid = int(line.split()[1])
                return pid if pid > 0 else None
    return None
