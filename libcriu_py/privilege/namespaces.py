"""Where a program runs that is going to checkpoint itself: the caller's own namespaces, or new ones."""

from __future__ import annotations

import os
from typing import NamedTuple

from libcriu_py.linux import supervision
from libcriu_py.linux.capabilities import needed
from libcriu_py.privilege.decision import FIRST_PID
from libcriu_py.privilege.mode import Privilege


class Place(NamedTuple):
    """Where to run something, and what criu is given there."""

    namespaces: int
    """NS_USER and NS_PID of `linux.supervision`, or 0."""
    ambient: int
    """Bits of the ambient capabilities, of use in a user namespace."""
    last_pid: int
    """Pids begin after this one; 0 leaves them alone."""

    @property
    def has_own_pids(self) -> bool:
        """Return whether pids of the caller cannot collide with those of an image."""
        return bool(self.namespaces & supervision.NS_PID)


HERE = Place(0, 0, 0)
_LOW_PIDS = 1000
"""Above what a container has in use soon after its start."""


def place_of_program(mode: Privilege) -> Place:
    """Return the place for a program that is going to checkpoint itself."""
    if mode is not Privilege.ROOTLESS:
        return HERE
    return Place(supervision.NS_USER | supervision.NS_PID, needed(reduced=False, dump=True), FIRST_PID)


def avoid_low_pids() -> None:
    """
    Let the next program have a pid that is free also in the next container.

    In a pid namespace with few processes, programs get the lowest pids, which are taken by others as soon as
    the container is started the next time. Elsewhere nothing is done.
    """
    if os.getpid() >= _LOW_PIDS:
        return
    try:
        with open("/proc/sys/kernel/ns_last_pid", "wb", buffering=0) as file:
            file.write(str(FIRST_PID).encode("ascii"))
    except OSError:
        _use_up_pids()


def _use_up_pids() -> None:
    """Make processes until the low pids have been given out, where /proc/sys cannot be written."""
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid >= _LOW_PIDS:
            return
