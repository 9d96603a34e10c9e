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

import enum
import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py import _support
from libcriu_py.errors import UnsupportedFeature

if TYPE_CHECKING:
    from collections.abc import Mapping

CAP_SETPCAP = 8
CAP_SYS_ADMIN = 21
CAP_CHECKPOINT_RESTORE = 40
FIRST_PID = 10_000
"""Where pids of a program in a namespace begin, clear of the helper processes of a restore."""

SERVICE_VARIABLE = "LIBCRIU_PY_SERVICE"
"""Names the socket on which the supervisor of a rootless program serves it a criu."""
MODE_VARIABLE = "LIBCRIU_PY_MODE"


class Privilege(enum.Enum):
    """How dump and restore are allowed."""

    AUTO = "auto"
    """The first of the others that works."""
    ROOT = "root"
    """uid 0 with capabilities."""
    CAPABILITY = "capability"
    """A criu with file capabilities."""
    ROOTLESS = "rootless"
    """Namespaces of one's own."""

    @classmethod
    def of(cls, mode: Privilege | str | None) -> Privilege:
        """
        Take a mode by name; None means LIBCRIU_PY_MODE, else AUTO.

        Raises:
            ValueError: there is no such mode.
        """
        if isinstance(mode, cls):
            return mode
        name = mode or os.environ.get(MODE_VARIABLE) or "auto"
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(member.value for member in cls)
            message = f"there is no mode {name!r}; the modes are {known}"
            raise ValueError(message) from None


class Decision(NamedTuple):
    """A mode that works, and why it was taken."""

    mode: Privilege
    why: str


class Capabilities(NamedTuple):
    """The capability sets of a process, as bit masks."""

    effective: int
    bounding: int

    def has(self, number: int) -> bool:
        """Tell whether a capability is in effect."""
        return bool(self.effective >> number & 1)


def capabilities() -> Capabilities:
    """Read the capabilities of this process from /proc/self/status."""
    sets: dict[bytes, int] = {}
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Cap"):
                name, _, mask = line.partition(b":")
                sets[name] = int(mask, 16)
    return Capabilities(sets.get(b"CapEff", 0), sets.get(b"CapBnd", 0))


def bounding_is_reduced() -> bool:
    """
    Tell whether the capability bounding set lacks something this kernel knows.

    Such a set is in the image, and a restore must reduce it again, which needs CAP_SETPCAP
    (`restore_creds` in CRIU's pie/restorer.c).
    """
    with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
        full = (1 << (int(file.read()) + 1)) - 1
    return capabilities().bounding & full != full


def has_file_capability(criu: str) -> bool:
    """Tell whether a criu program carries CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN) as a file capability."""
    try:
        data = os.getxattr(criu, "security.capability")
    except OSError:
        return False
    # struct vfs_cap_data, include/uapi/linux/capability.h: magic, then (permitted, inheritable) words.
    low = int.from_bytes(data[4:8], "little")
    high = int.from_bytes(data[12:16], "little")
    permitted = low | high << 32
    return bool(permitted >> CAP_CHECKPOINT_RESTORE & 1 or permitted >> CAP_SYS_ADMIN & 1)


def decide(mode: Privilege | str | None = None, *, criu: str | None = None, dumped_in: str | None = None) -> Decision:
    """
    Choose how to be allowed.

    Args:
        mode: a mode, or its name; None and AUTO choose the first that works.
        criu: the criu program; None finds it.
        dumped_in: the mode of the dump, which is tried first: the image's capabilities are those of it.

    Returns:
        The mode and the reason for it.

    Raises:
        UnsupportedFeature: none works, with what stops each.
        ValueError: there is no such mode.
    """
    wanted = Privilege.of(mode)
    if wanted is not Privilege.AUTO:
        reason = _obstacle(wanted, criu)
        if reason is not None:
            message = f"mode {wanted.value} does not work here: {reason}"
            raise UnsupportedFeature(message)
        return Decision(wanted, "it was asked for")
    obstacles: list[str] = []
    candidates = [Privilege.ROOT, Privilege.ROOTLESS, Privilege.CAPABILITY]
    candidates.sort(key=lambda candidate: candidate.value != dumped_in)
    for candidate in candidates:
        reason = _obstacle(candidate, criu)
        if reason is None:
            why = "; ".join(obstacles) or ("the snapshot was made so" if dumped_in else "this process is root")
            return Decision(candidate, why)
        obstacles.append(f"{candidate.value}: {reason}")
    message = "neither dump nor restore is allowed here: " + "; ".join(obstacles)
    raise UnsupportedFeature(message)


def _obstacle(mode: Privilege, criu: str | None) -> str | None:
    """Give the first thing that stops a mode, or None."""
    if mode is Privilege.ROOT:
        return _root_obstacle()
    if mode is Privilege.ROOTLESS:
        return namespace_obstacle()
    return _capability_obstacle(criu)


def _root_obstacle() -> str | None:
    if os.geteuid() != 0:
        return "this process is not root (run it with sudo)"
    held = capabilities()
    if not held.has(CAP_CHECKPOINT_RESTORE) and not held.has(CAP_SYS_ADMIN):
        return (
            "root has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN here "
            "(start the container with --cap-add CHECKPOINT_RESTORE)"
        )
    return None


def _capability_obstacle(criu: str | None) -> str | None:
    if criu is None:
        from libcriu_py.binary import find_criu

        criu = find_criu()
    if not has_file_capability(criu):
        return (
            f"{criu} carries no file capability (a root user can give it: "
            f"setcap cap_checkpoint_restore+eip {criu}, on a copy that only a trusted group may execute)"
        )
    return None


def namespace_obstacle() -> str | None:
    """Give what stops a user + pid + mount namespace with a /proc of its own, or None."""
    if SERVICE_VARIABLE in os.environ:
        return None  # inside of one already
    error, stage = _support.probe_namespaces(_support.NS_USER | _support.NS_PID)
    if error == 0:
        return None
    return f"{_support.STAGES.get(stage, 'starting')} fails with {os.strerror(error)}{_namespace_advice(stage)}"


_SWITCHES: Mapping[str, tuple[str, str]] = {
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl -w user.max_user_namespaces=15000"),
}


def _namespace_advice(stage: int) -> str:
    for path, (bad, command) in _SWITCHES.items():
        try:
            with open(path, encoding="ascii") as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == bad:
            return f" (root can allow it: {command})"
    if stage == _support.STAGE_PROC:
        return (
            " (parts of /proc are covered, as container engines do: "
            "start the container with --security-opt systempaths=unconfined)"
        )
    return " (a container's seccomp profile may forbid it: start the container with --security-opt seccomp=unconfined)"


def decide_dump(criu: str) -> Privilege:
    """
    Choose how this process may dump itself, where it is.

    Args:
        criu: the criu program.

    Returns:
        The mode.

    Raises:
        UnsupportedFeature: it may not, with what to do.
    """
    if SERVICE_VARIABLE in os.environ:
        return Privilege.ROOTLESS
    wanted = Privilege.of(None)
    obstacles: list[str] = []
    for mode in (Privilege.ROOT, Privilege.CAPABILITY):
        if wanted not in {Privilege.AUTO, mode}:
            continue
        reason = _obstacle(mode, criu)
        if reason is None:
            return mode
        obstacles.append(f"{mode.value}: {reason}")
    message = (
        "this process may not be dumped where it runs; start the program with: libcriu-py snapshot -o DIR PROGRAM, "
        "which gives it a namespace where it may"
    )
    if obstacles:
        message += f" ({'; '.join(obstacles)})"
    raise UnsupportedFeature(message)
