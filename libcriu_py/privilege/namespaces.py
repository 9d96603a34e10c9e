"""
Where a program or a restore runs: the caller's own namespaces, or new ones.

A pid can be in use by one process of a pid namespace only, and a restored process must have the
pid it was dumped with. So a restore whose pid is taken moves to a pid namespace, where that is
allowed; a rootless one is in its own from the beginning.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.linux import support
from libcriu_py.linux.capabilities import CAP_SYS_ADMIN, capabilities, needed
from libcriu_py.privilege.decision import FIRST_PID, differs_harmlessly, namespace_obstacle
from libcriu_py.privilege.mode import Privilege

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Place(NamedTuple):
    """Where to run something, and what criu is given there."""

    namespaces: int
    """NS_USER and NS_PID of `linux.support`, or 0."""
    ambient: int
    """Bits of the ambient capabilities, of use in a user namespace."""
    last_pid: int
    """Pids begin after this one; 0 leaves them alone."""

    @property
    def has_own_pids(self) -> bool:
        """Return whether pids of the caller cannot collide with those of an image."""
        return bool(self.namespaces & support.NS_PID)

    @property
    def is_rootless(self) -> bool:
        """Return whether it is a user namespace, where file capabilities are not needed."""
        return bool(self.namespaces & support.NS_USER)


HERE = Place(0, 0, 0)
_LOW_PIDS = 1000
"""Above what a container has in use soon after its start."""


def place_of_program(mode: Privilege) -> Place:
    """Return the place for a program that is going to checkpoint itself."""
    if mode is not Privilege.ROOTLESS:
        return HERE
    return Place(support.NS_USER | support.NS_PID, needed(reduced=False, dump=True), FIRST_PID)


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


def place_of_restore(mode: Privilege, manifest: Mapping[str, Any], criu: str, *, isolate: bool) -> Place:
    """
    Return the place for a restore.

    Args:
        mode: How the restore is allowed.
        manifest: That of the snapshot.
        criu: The criu program that would run in a user namespace.
        isolate: Whether a pid namespace is wanted even where the pids look free.

    Returns:
        The place; where a pid namespace is wanted but not allowed, the caller's, where criu will say
        which pid is taken.
    """
    pids: list[int] = manifest["pids"]
    if mode is not Privilege.ROOTLESS:
        if not isolate and taken(pids) is None:
            return HERE
        if mode is Privilege.ROOT and capabilities().has(CAP_SYS_ADMIN):
            return Place(support.NS_PID, 0, _clear_of(pids))
        same = differs_harmlessly(Privilege.ROOTLESS, manifest)
        if not same or namespace_obstacle(criu, manifest) is not None:
            return HERE
    ambient = needed(reduced=bool(manifest.get("reduced_bounding")), dump=False)
    return Place(support.NS_USER | support.NS_PID, ambient, _clear_of(pids))


def _clear_of(pids: Sequence[int]) -> int:
    """Pids of a restore's helper processes come from low numbers, unless the image has such itself."""
    helpers = 20
    return 0 if not pids or min(pids) > helpers else max(pids) + 1


def taken(pids: Sequence[int]) -> int | None:
    """Return the first pid (or thread id, which is of the same kind) that is in use, or None."""
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            return pid
        return pid
    return None
