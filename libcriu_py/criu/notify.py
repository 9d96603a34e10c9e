"""Notifications from criu during an operation."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Action(str, Enum):
    """The stages at which criu notifies (action_names in criu/action-scripts.c)."""

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
    A notification from criu.

    The process tree waits until the callback returns. An exception in the callback ends the operation, which raises it.

    Attributes:
        action: The stage: an `Action`, or the name of one of a newer criu.
        pid: The root of the process tree; None if criu does not send it.
        orphan_pts_master: With `Action.ORPHAN_PTS_MASTER`, a descriptor of the master of the pty, which the callback
            owns; else None.
    """

    action: Action | str
    pid: int | None = None
    orphan_pts_master: int | None = None


def make_notification(action: str, pid: int | None, orphan_pts_master: int | None) -> Notification:
    """Return a notification made from libcriu's arguments."""
    known = Action(action) if action in {member.value for member in Action} else action
    return Notification(known, pid, orphan_pts_master)
