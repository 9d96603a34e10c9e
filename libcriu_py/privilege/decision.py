"""
Choosing a privilege mode for a dump or a restore.

- `root`: uid 0 with capabilities; criu runs in the caller's namespaces.
- `capability`: a criu with file capabilities, which runs in the caller's namespaces.
- `rootless`: program and restores run in new user, pid and mount namespaces, where CAP_CHECKPOINT_RESTORE alone is
  enough (namespaces.c and cr-restore.c of CRIU) and nothing outside is touched.

In every mode criu gets its option `unprivileged`: it keeps its cache of kernel features in XDG_RUNTIME_DIR, and leaves
cgroups and the time namespace alone.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import UnsupportedFeature
from libcriu_py.linux import runtime_dir, supervision
from libcriu_py.linux.capabilities import (
    CAP_CHECKPOINT_RESTORE,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETUID,
    CAP_SYS_ADMIN,
    bounding_is_reduced,
    capabilities,
    file_capabilities,
    has_file_capability,
    needed,
)
from libcriu_py.linux.files import read_small, stat
from libcriu_py.privilege.mode import Obstacle, Privilege, groups_in
from libcriu_py.settings import variable

if TYPE_CHECKING:
    from libcriu_py.snapshot.record import Launch

FIRST_PID = 10_000
"""The first pid of a program in a new namespace, out of the way of the helper processes of a restore."""

CAPABLE_CRIU = "/usr/local/lib/libcriu_py/criu"
"""Where `libcriu-py setup` installs a criu with file capabilities."""


class Decision(NamedTuple):
    """A mode that works, and why it was chosen."""

    mode: Privilege
    why: str
    criu: str
    """The criu program of this mode."""


def capable_criu(criu: str) -> str:
    """Return the criu for the capability mode: this one if it has file capabilities, else that of `setup`."""
    if not has_file_capability(criu) and has_file_capability(CAPABLE_CRIU):
        return CAPABLE_CRIU
    return criu


def decide(mode: Privilege | str | None = None, *, criu: str | None = None, launch: Launch | None = None) -> Decision:
    """
    Choose the privilege mode of a dump or a restore.

    Args:
        mode: A mode or its name; None and AUTO choose the first that works.
        criu: The criu program; None finds one.
        launch: The record of the snapshot to restore, whose mode is tried first; None for a dump.

    Returns:
        The mode, the reason for it, and its criu.

    Raises:
        UnsupportedFeature: No mode works; the message has the obstacle to each.
        ValueError: There is no such mode.
    """
    if criu is None:
        from libcriu_py.criu.find import find_criu

        criu = find_criu()
    wanted = Privilege.of(mode)
    if wanted is not Privilege.AUTO:
        obstacle = find_obstacle(wanted, criu, launch)
        if obstacle is not None:
            message = f"mode {wanted.value} does not work here: {obstacle}"
            raise UnsupportedFeature(message)
        return Decision(wanted, "it was asked for", _criu_of(wanted, criu))
    dumped_in = launch.mode if launch is not None else None
    candidates = [Privilege.ROOT, Privilege.ROOTLESS, Privilege.CAPABILITY]
    candidates.sort(key=lambda candidate: candidate.value != dumped_in)
    obstacles: list[str] = []
    for candidate in candidates:
        obstacle = find_obstacle(candidate, criu, launch)
        if obstacle is None:
            why = "; ".join(obstacles) or ("the snapshot was made so" if dumped_in else "this process is root")
            return Decision(candidate, why, _criu_of(candidate, criu))
        obstacles.append(f"{candidate.value}: {obstacle}")
    message = "neither dump nor restore is allowed here: " + "; ".join(obstacles)
    raise UnsupportedFeature(message)


def _criu_of(mode: Privilege, criu: str) -> str:
    return capable_criu(criu) if mode is Privilege.CAPABILITY else criu


def find_obstacle(mode: Privilege, criu: str, launch: Launch | None = None) -> Obstacle | None:
    """
    Return the first obstacle to a mode that cheap checks find; None if there is none.

    Args:
        mode: Root, capability or rootless.
        criu: The criu program.
        launch: The record of the snapshot to restore; None for a dump.
    """
    obstacle = None if launch is not None else _dump_obstacle()
    if obstacle is not None:
        return obstacle
    if mode is Privilege.ROOT:
        obstacle = _root_obstacle(launch)
    elif mode is Privilege.ROOTLESS:
        obstacle = namespace_obstacle(criu, launch)
    else:
        obstacle = _capability_obstacle(capable_criu(criu), launch)
    if obstacle is None and launch is not None and not can_become(mode, launch):
        from libcriu_py.privilege.obstacles import other_identity

        obstacle = other_identity(mode, launch)
    return obstacle


def _dump_obstacle() -> Obstacle | None:
    """Return what prevents a dump, but not a restore, of anything that this process starts."""
    if not capabilities().seccomp_filters:
        return None
    from libcriu_py.privilege.obstacles import no_dump

    return no_dump()


def _root_obstacle(launch: Launch | None) -> Obstacle | None:
    held = capabilities()
    allowed = held.has(CAP_CHECKPOINT_RESTORE) or held.has(CAP_SYS_ADMIN)
    wanted = 0 if launch is None else launch.capabilities
    setpcap = held.has(CAP_SETPCAP) or not _is_reduced(launch)
    if os.geteuid() == 0 and allowed and setpcap and not wanted & ~held.permitted:
        return None
    from libcriu_py.privilege.obstacles import no_root

    return no_root(held, wanted)


def _capability_obstacle(criu: str, launch: Launch | None) -> Obstacle | None:
    held = capabilities()
    carried = file_capabilities(criu)
    wanted = needed(reduced=_is_reduced(launch), dump=False)
    usable = carried & wanted == wanted and not carried & ~held.bounding and not held.no_new_privs
    if usable and os.access(criu, os.X_OK) and not os.statvfs(criu).f_flag & os.ST_NOSUID:
        return None
    from libcriu_py.privilege.obstacles import no_capability

    return no_capability(criu, wanted, held)


def _is_reduced(launch: Launch | None) -> bool:
    """Return whether a snapshot, or None for this process, has a reduced bounding set."""
    return bounding_is_reduced() if launch is None else launch.reduced_bounding


def namespace_obstacle(criu: str, launch: Launch | None = None) -> Obstacle | None:
    """
    Return what prevents new user, pid and mount namespaces with their own /proc, or a criu in them.

    Success is cached until the next boot: trying takes longer than all other preparations of a restore.
    """
    carried = file_capabilities(criu)
    reduced = launch is not None and launch.reduced_bounding
    ambient = needed(reduced=reduced, dump=launch is None)
    if carried and ambient & ~carried:
        # File capabilities take the place of ambient ones (capabilities(7), transformation during execve).
        from libcriu_py.privilege.obstacles import too_few_file_capabilities

        return too_few_file_capabilities(criu, ambient)
    if carried and launch is None and os.geteuid() == 0:
        from libcriu_py.privilege.obstacles import no_exec_in_namespace

        return no_exec_in_namespace(criu)
    if variable("LIBCRIU_PY_SERVICE") or os.path.exists(_namespaces_work()):
        return None  # inside one already, or cached
    error, stage = supervision.probe_namespaces(supervision.NS_USER | supervision.NS_PID)
    if error == 0:
        os.close(os.open(_namespaces_work(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return None
    from libcriu_py.privilege.obstacles import no_namespace

    return no_namespace(error, stage)


def _namespaces_work() -> str:
    """Return the path of the file that caches that namespaces can be made from here, under these filters."""
    boot = (read_small("/proc/sys/kernel/random/boot_id") or b"unknown")[:8].decode("ascii")
    places = [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("user", "mnt", "pid")]
    # The kernel reuses inodes of namespaces; the start time of pid 1 tells containers apart.
    identity = "-".join(map(str, [boot, os.getegid(), *places, _start_of_init(), capabilities().seccomp_filters]))
    return os.path.join(runtime_dir.private_directory(), f"namespaces-{identity}")


def namespaces_failed(error: int, stage: int) -> UnsupportedFeature:
    """Return the exception for namespaces that could not be made; drop the cached success."""
    from libcriu_py.privilege.obstacles import no_namespace

    forget_namespaces()
    message = f"mode {Privilege.ROOTLESS.value} does not work here: {no_namespace(error, stage)}"
    return UnsupportedFeature(message)


def _start_of_init() -> int:
    """Return the start time of pid 1, in clock ticks after boot; 0 if /proc hides it."""
    try:
        return int(stat(1)[19])
    except OSError:
        return 0


def forget_namespaces() -> None:
    """Drop the cached success after namespaces could not be made."""
    try:
        os.unlink(_namespaces_work())
    except FileNotFoundError:
        return


def can_become(mode: Privilege, launch: Launch) -> bool:
    """
    Return whether a restored process can get the user, group and supplementary groups of the dumped one.

    criu sets those that differ, which needs CAP_SETUID and CAP_SETGID; it leaves the supplementary groups alone if the
    image has none (`restore_creds` in CRIU's pie/restorer.c).
    """
    if mode is Privilege.ROOT:
        held = capabilities()
        if held.has(CAP_SETUID) and held.has(CAP_SETGID):
            return True
    same = (launch.uid, launch.gid) == (os.geteuid(), os.getegid())
    return same and (not launch.groups or list(launch.groups) == groups_in(mode))


def decide_dump(criu: str) -> Decision:
    """
    Choose the mode in which this process can dump itself, in its own namespaces.

    Args:
        criu: The criu program.

    Returns:
        The mode, the reason for it, and its criu.

    Raises:
        UnsupportedFeature: It cannot; the message says what to do.
    """
    if variable("LIBCRIU_PY_SERVICE"):
        return Decision(Privilege.ROOTLESS, "this is a namespace made for it", criu)
    wanted = Privilege.of(None)
    obstacles: list[str] = []
    for mode in (Privilege.ROOT, Privilege.CAPABILITY):
        if wanted not in {Privilege.AUTO, mode}:
            continue
        obstacle = find_obstacle(mode, criu)
        if obstacle is None:
            return Decision(mode, "; ".join(obstacles) or "it is allowed where this process is", _criu_of(mode, criu))
        obstacles.append(f"{mode.value}: {obstacle}")
    message = (
        "this process may not be dumped where it runs; start the program with: libcriu-py snapshot -o DIR PROGRAM, "
        "which gives it a namespace where it may"
    )
    if obstacles:
        message += f" ({'; '.join(obstacles)})"
    raise UnsupportedFeature(message)
