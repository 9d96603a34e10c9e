"""
The three ways to be allowed to dump and restore, and the choice between them.

- `root`: uid 0 with the capabilities. criu runs where the caller is.
- `capability`: criu carries file capabilities; it runs where the caller is.
- `rootless`: program and restores run in a user, pid and mount namespace of their own, where one
  capability, CAP_CHECKPOINT_RESTORE, is enough (namespaces.c and cr-restore.c of CRIU) and nothing
  outside is touched.

In all three criu is asked for its `unprivileged` mode: as root too this is what makes it keep its
cache of kernel features where we want it, and leaves cgroups and the time namespace alone.
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
"""Where pids of a program in a namespace begin, clear of the helper processes of a restore."""

CAPABLE_CRIU = "/usr/local/lib/libcriu_py/criu"
"""Where `libcriu-py setup` puts the criu with file capabilities, beside the one without any."""


class Decision(NamedTuple):
    """A mode that works, and why it was taken."""

    mode: Privilege
    why: str
    criu: str
    """The criu program of this mode."""


def capable_criu(criu: str) -> str:
    """Return the program for the capability mode: this one if it carries the capability, else that of `setup`."""
    if not has_file_capability(criu) and has_file_capability(CAPABLE_CRIU):
        return CAPABLE_CRIU
    return criu


def decide(mode: Privilege | str | None = None, *, criu: str | None = None, launch: Launch | None = None) -> Decision:
    """
    Choose how to be allowed.

    Args:
        mode: A mode, or its name; None and AUTO choose the first that works.
        criu: The criu program; None finds it.
        launch: The record of the snapshot to be restored, whose mode is tried first; None is about a dump.

    Returns:
        The mode, the reason for it, and its criu.

    Raises:
        UnsupportedFeature: None works, with what stops each.
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
    Find what stops a mode, by what costs little to ask.

    Args:
        mode: Root, capability or rootless.
        criu: The criu program.
        launch: The record of the snapshot to be restored; None is about a dump.

    Returns:
        The first thing that stops it, or None.
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
    if obstacle is None and launch is not None and not differs_harmlessly(mode, launch):
        from libcriu_py.privilege.obstacles import other_identity

        obstacle = other_identity(mode, launch)
    return obstacle


def _dump_obstacle() -> Obstacle | None:
    """Find what stops a dump of anything that this process starts, but no restore."""
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
    """Return whether an image has a reduced bounding set; without one, whether an image of this process would."""
    return bounding_is_reduced() if launch is None else launch.reduced_bounding


def namespace_obstacle(criu: str, launch: Launch | None = None) -> Obstacle | None:
    """
    Find what stops a user + pid + mount namespace with a /proc of its own, and a criu in it.

    A good answer is remembered until the next boot, since making namespaces to find out takes longer
    than the rest of the preparations of a restore.
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
        return None  # inside of one already, or found to work
    error, stage = supervision.probe_namespaces(supervision.NS_USER | supervision.NS_PID)
    if error == 0:
        os.close(os.open(_namespaces_work(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        return None
    from libcriu_py.privilege.obstacles import no_namespace

    return no_namespace(error, stage)


def _namespaces_work() -> str:
    """Name the file that says that namespaces can be made from this process's ones, under its filters."""
    boot = (read_small("/proc/sys/kernel/random/boot_id") or b"unknown")[:8].decode("ascii")
    places = [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("user", "mnt", "pid")]
    # Numbers of namespaces are used again; with the start of their pid 1 they tell one container from the next.
    identity = "-".join(map(str, [boot, os.getegid(), *places, _start_of_init(), capabilities().seccomp_filters]))
    return os.path.join(runtime_dir.private_directory(), f"namespaces-{identity}")


def namespaces_failed(error: int, stage: int) -> UnsupportedFeature:
    """Make the exception for namespaces that could not be made, and forget that they once could."""
    from libcriu_py.privilege.obstacles import no_namespace

    forget_namespaces()
    message = f"mode {Privilege.ROOTLESS.value} does not work here: {no_namespace(error, stage)}"
    return UnsupportedFeature(message)


def _start_of_init() -> int:
    """Return the start of pid 1, in clock ticks after the boot; 0 where /proc hides it."""
    try:
        return int(stat(1)[19])
    except OSError:
        return 0


def forget_namespaces() -> None:
    """Forget that namespaces could be made: it was tried, and they could not."""
    try:
        os.unlink(_namespaces_work())
    except FileNotFoundError:
        return


def differs_harmlessly(mode: Privilege, launch: Launch) -> bool:
    """
    Return whether a restored process can get the user, group and supplementary groups of the dumped one.

    criu sets them where they differ, which takes CAP_SETUID and CAP_SETGID; it leaves the supplementary
    groups alone where the image has none (`restore_creds` in CRIU's pie/restorer.c).
    """
    if mode is Privilege.ROOT:
        held = capabilities()
        if held.has(CAP_SETUID) and held.has(CAP_SETGID):
            return True
    same = (launch.uid, launch.gid) == (os.geteuid(), os.getegid())
    return same and (not launch.groups or list(launch.groups) == groups_in(mode))


def decide_dump(criu: str) -> Decision:
    """
    Choose how this process may dump itself, where it is.

    Args:
        criu: The criu program.

    Returns:
        The mode, the reason for it, and its criu.

    Raises:
        UnsupportedFeature: It may not, with what to do.
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
