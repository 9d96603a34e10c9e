"""What criu tells during an operation."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

__all__ = ["Action", "Notification"]


class Action(str, Enum):
    """The moments at which criu calls (action_names in criu/action-scripts.c)."""

    PRE_STREAM = "pre-stream"
    PRE_DUMP = "pre-dump"
    POST_DUMP = "post-dump"
    PRE_RESTORE = "pre-restore"
    POST_RESTORE = "post-restore"
    NETWORK_LOCK = "network-lock"
    NETWORK_UNLOCK = "network-unlock"
    SETUP_NAMESPACES = "setup-namespaces"
    POST_SETUP_NAMESPACES = "post-setup-namespaces"
    PRE_RESUME = "pre-resume"
    POST_RESUME = "post-resume"
    ORPHAN_PTS_MASTER = "orphan-pts-master"
    STATUS_READY = "status-ready"
    QUERY_EXT_FILES = "query-ext-files"


class Notification(NamedTuple):
    """
    One call of criu.

    The process tree waits until the callback returns.  An exception raised by
    the callback ends the operation, which then raises it.

    Attributes:
        action: When it is, an `Action` or the name that a newer criu uses.
        pid: The root of the process tree, None where criu does not say.
        orphan_pts_master: The master of the pty, with `Action.ORPHAN_PTS_MASTER`; the callback
            owns the descriptor.
    """

    action: Action | str
    pid: int | None = None
    orphan_pts_master: int | None = None


def make_notification(action: str, pid: int | None, orphan_pts_master: int | None) -> Notification:
    """Build a notification from what libcriu passes."""
    known = Action(action) if action in {member.value for member in Action} else action
    return Notification(known, pid, orphan_pts_master)
