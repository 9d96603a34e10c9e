"""The namespaces in which to start a program that will checkpoint itself."""

from __future__ import annotations

import os
from typing import NamedTuple

from libcriu_py.linux import supervision
from libcriu_py.linux.capabilities import needed
from libcriu_py.privilege.decision import FIRST_PID
from libcriu_py.privilege.mode import Privilege


class Place(NamedTuple):
    """Namespaces to run a program in, and the capabilities of its criu there."""

    namespaces: int
    """NS_USER and NS_PID of `linux.supervision`, or 0."""
    ambient: int
    """The ambient capabilities of criu, as a bit mask; for a user namespace."""
    last_pid: int
    """The pid after which those of a new namespace begin; 0 leaves them alone."""

    @property
    def has_own_pids(self) -> bool:
        """Return whether there is a new pid namespace, where pids of an image are free."""
        return bool(self.namespaces & supervision.NS_PID)


HERE = Place(0, 0, 0)
_LOW_PIDS = 1000
"""Higher than any pid that a container uses soon after its start."""


def place_of_program(mode: Privilege) -> Place:
    """Return where to start a program that will checkpoint itself."""
    if mode is not Privilege.ROOTLESS:
        return HERE
    return Place(supervision.NS_USER | supervision.NS_PID, needed(reduced=False, dump=True), FIRST_PID)


def avoid_low_pids() -> None:
    """
    Make sure that the next program gets a pid that will be free in the next container too.

    In a new pid namespace programs get the lowest pids, which other processes have when the container is started again.
    Nothing is done if this process already has a high pid.
    """
    if os.getpid() >= _LOW_PIDS:
        return
    try:
        with open("/proc/sys/kernel/ns_last_pid", "wb", buffering=0) as file:
            file.write(str(FIRST_PID).encode("ascii"))
    except OSError:
        _use_up_pids()


def _use_up_pids() -> None:
    """Fork until the low pids are used up, for when /proc/sys cannot be written."""
    while True:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if pid >= _LOW_PIDS:
            return
