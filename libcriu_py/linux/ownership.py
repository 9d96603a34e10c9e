"""Who could put something else in the place of a file: what owner and mode of the directories on the way to it say."""

from __future__ import annotations

import os
import stat as modes

GROUP_OR_OTHERS_WRITE = 0o022
_OVERFLOW = 65534
"""Whom files seem to belong to whose owner has no number in this user namespace."""


def danger_in(status: os.stat_result) -> str | None:
    """
    Say which other ordinary user could replace what is in a directory; None where there is none.

    Sticky directories are fine: there one replaces only what is one's own. So is the group that an account has to
    itself, whose number is that of the account.

    Args:
        status: That of the directory.
    """
    owner = status.st_uid
    if owner not in {os.geteuid(), 0} and not (owner == _OVERFLOW and _hides_owners()):
        return f"belongs to uid {owner}"
    written = status.st_mode & (0o002 if status.st_gid == owner else GROUP_OR_OTHERS_WRITE)
    if written and not status.st_mode & modes.S_ISVTX:
        return f"can be written by others (mode {status.st_mode & 0o7777:04o})"
    return None


def danger_of_program(path: str) -> str | None:
    """
    Say what another ordinary user could do to a program; None where it is root's or ours, and so is the way to it.

    Args:
        path: Its path.

    Raises:
        OSError: It is not there.
    """
    path = os.path.realpath(path)
    status = os.stat(path)
    if status.st_uid not in {os.geteuid(), 0}:
        return f"{path} belongs to uid {status.st_uid}"
    if status.st_mode & GROUP_OR_OTHERS_WRITE:
        return f"{path} can be written by others (mode {status.st_mode & 0o7777:04o})"
    while path != "/":
        path = os.path.dirname(path)
        danger = danger_in(os.stat(path))
        if danger is not None:
            return f"{path} {danger}"
    return None


def _hides_owners() -> bool:
    """Return whether this is a user namespace in which not every account has a number."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return not any(int(first) <= _OVERFLOW < int(first) + int(count) for first, _, count in map(str.split, file))
