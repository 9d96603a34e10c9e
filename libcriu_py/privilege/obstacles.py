"""
Messages for obstacles to a privilege mode: the reason, the command that fixes it, and who must run that.

Imported only when there is an obstacle, so that a restore that works does not pay for it.
"""

from __future__ import annotations

import os
import shlex
import sys
from typing import TYPE_CHECKING

from libcriu_py.linux import supervision
from libcriu_py.linux.capabilities import (
    CAP_CHECKPOINT_RESTORE,
    CAP_SETPCAP,
    CAP_SYS_ADMIN,
    CAP_SYS_PTRACE,
    Capabilities,
    file_capabilities,
    names,
)
from libcriu_py.linux.files import read_small, status
from libcriu_py.linux.mounts import mounts
from libcriu_py.privilege.mode import Obstacle, Privilege, groups_in

if TYPE_CHECKING:
    from libcriu_py.snapshot.record import Launch

ROOT = "root"
YOU = "you"
STARTER = "whoever starts the container"

_SWITCHES: tuple[tuple[str, str, str], ...] = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "this kernel lets root alone make user namespaces"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor takes the capabilities away from who makes a user namespace",
    ),
    ("/proc/sys/user/max_user_namespaces", "0", "the number of user namespaces is limited to 0"),
    ("/proc/sys/user/max_pid_namespaces", "0", "the number of pid namespaces is limited to 0"),
    ("/proc/sys/user/max_mnt_namespaces", "0", "the number of mount namespaces is limited to 0"),
)
_GOOD = {"unprivileged_userns_clone": "1", "apparmor_restrict_unprivileged_userns": "0"}
_ENOUGH = "15000"  # namespaces
_SECCOMP_FILTERED = 2  # SECCOMP_MODE_FILTER of the kernel, the value in /proc/PID/status


def in_container() -> bool:
    """Return whether this looks like a container, whose limits its starter sets."""
    marks = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
    return "KUBERNETES_SERVICE_HOST" in os.environ or any(map(os.path.exists, marks))


def setup_command() -> str:
    """Return the command that installs a criu with file capabilities for this user."""
    account = _account(os.geteuid())
    return f"{own_command()} setup" if os.geteuid() == 0 else f"{own_command()} setup --user {account}"


def own_command() -> str:
    """Return a command line for `libcriu-py` that works here, for root too."""
    beside = os.path.join(os.path.dirname(sys.executable), "libcriu-py")
    if os.access(beside, os.X_OK):
        return shlex.quote(beside)
    return f"{shlex.quote(sys.executable)} -m libcriu_py"


# ---- dumps ------------------------------------------------------------------


def no_dump() -> Obstacle:
    """Return the obstacle to any dump below this process: its seccomp filter."""
    return Obstacle(
        "this process is under a seccomp filter, which criu would have to suspend for a dump, and the kernel lets only "
        "an unfiltered process with CAP_SYS_ADMIN do so (ptrace_check_options in kernel/ptrace.c)",
        "docker run --security-opt seccomp=unconfined ..., for making the snapshot; restores may run under a filter"
        if in_container()
        else "leave SystemCallFilter= and the like out of the service that makes the snapshot",
        STARTER if in_container() else "whoever started this process",
    )


# ---- root ------------------------------------------------------------------


def no_root(held: Capabilities, wanted: int = 0) -> Obstacle:
    """
    Return the obstacle to the root mode.

    Args:
        held: The capabilities of this process.
        wanted: The capabilities of the program in the image.
    """
    if os.geteuid() != 0:
        return Obstacle("this process is not root", f"sudo {own_command()} ...", "you, where sudo lets you")
    allowed = held.has(CAP_CHECKPOINT_RESTORE) or held.has(CAP_SYS_ADMIN)
    if allowed and wanted & ~held.permitted:
        return Obstacle(
            f"the program had {names(wanted & ~held.permitted)} when it was dumped, which this root lacks",
            f"LIBCRIU_PY_MODE=rootless {own_command()} run ..., or make the snapshot with LIBCRIU_PY_MODE=root",
            YOU,
        )
    if allowed:
        return Obstacle(
            "root has no cap_setpcap here, which a restore needs to reduce the capability bounding set as it was",
            "docker run --cap-add SETPCAP ...",
            STARTER if in_container() else "whoever started this process",
        )
    if held.bounding >> CAP_CHECKPOINT_RESTORE & 1 or held.bounding >> CAP_SYS_ADMIN & 1:
        return Obstacle(
            "this root has given up CAP_CHECKPOINT_RESTORE and CAP_SYS_ADMIN, though its bounding set has them",
            "setpriv --inh-caps +checkpoint_restore --ambient-caps +checkpoint_restore COMMAND",
            "whoever started this process, in its place",
        )
    return Obstacle(
        "root has neither CAP_CHECKPOINT_RESTORE nor CAP_SYS_ADMIN here",
        "docker run --cap-add CHECKPOINT_RESTORE ...",
        STARTER,
    )


# ---- file capabilities -----------------------------------------------------


def no_capability(criu: str, needed: int, held: Capabilities) -> Obstacle:
    """
    Return the obstacle to the capability mode.

    Args:
        criu: The criu program.
        needed: The file capabilities that it needs, as a bit mask.
        held: The capabilities of this process.
    """
    carried = file_capabilities(criu)
    if not carried >> CAP_CHECKPOINT_RESTORE & 1 and not carried >> CAP_SYS_ADMIN & 1:
        return Obstacle(f"{criu} carries no file capability", setup_command(), ROOT)
    if carried & needed != needed:
        return Obstacle(
            f"{criu} carries {names(carried)} and not {names(needed & ~carried)}, which is needed here"
            f"{_reason(needed & ~carried)}",
            f"setcap {names(needed | carried)}+eip {shlex.quote(criu)}",
            ROOT,
        )
    if not os.access(criu, os.X_OK):
        return _other_group(criu)
    return _not_gained(criu, carried, held)


def _reason(missing: int) -> str:
    if missing >> CAP_SETPCAP & 1:
        return " since the program's capability bounding set lacks something, and has to lack it again"
    return " since kernel.yama.ptrace_scope is 2" if missing >> CAP_SYS_PTRACE & 1 else ""


def _not_gained(criu: str, carried: int, held: Capabilities) -> Obstacle:
    """Return why a criu would not get its file capabilities when it is executed."""
    if held.no_new_privs:
        return Obstacle(
            "this process has NO_NEW_PRIVS set, which switches file capabilities off for all that it starts",
            "docker run without --security-opt no-new-privileges (Kubernetes: allowPrivilegeEscalation: true)",
            "whoever started this process",
        )
    missing = carried & ~held.bounding
    if missing:
        adding = " ".join(f"--cap-add {name[4:].upper()}" for name in names(missing).split(","))
        return Obstacle(
            f"{criu} carries {names(missing)}, which the capability bounding set of this process lacks, so that "
            "it cannot be executed (EPERM)",
            f"docker run {adding} ...",
            STARTER if in_container() else "whoever started this process",
        )
    return Obstacle(
        f"{criu} is on a file system mounted nosuid, where file capabilities have no effect",
        setup_command(),
        ROOT,
    )


def _other_group(path: str) -> Obstacle:
    import grp

    owner = os.stat(path).st_gid
    try:
        group = grp.getgrgid(owner).gr_name
    except KeyError:
        group = str(owner)
    return Obstacle(
        f"{path} may be executed by members of the group {group}, and this process is not in it",
        f"usermod -aG {shlex.quote(group)} {_account(os.geteuid())}, then log in again",
        ROOT,
    )


def too_few_file_capabilities(criu: str, ambient: int) -> Obstacle:
    """Return the obstacle of a criu whose file capabilities replace the ones it needs in a user namespace."""
    return Obstacle(
        f"{criu} carries file capabilities, and not {names(ambient & ~file_capabilities(criu))}: in a namespace "
        "they take the place of those that it is given",
        f"LIBCRIU_PY_CRIU=/path/to/a/criu/without/any, or: setcap {names(ambient)}+eip {shlex.quote(criu)}",
        "you, or root",
    )


def no_exec_in_namespace(criu: str) -> Obstacle:
    """Return the obstacle that root's program in a namespace cannot execute a criu with file capabilities."""
    return Obstacle(
        f"{criu} carries file capabilities, and what root starts in a namespace has an empty bounding set, "
        "under which it cannot be executed (EPERM)",
        "LIBCRIU_PY_CRIU=/path/to/a/criu/without/any, or LIBCRIU_PY_MODE=root",
        YOU,
    )


# ---- namespaces ------------------------------------------------------------


def no_namespace(error: int, stage: int) -> Obstacle:
    """
    Return the obstacle to the namespaces of the rootless mode.

    Args:
        error: The errno of the failed step.
        stage: The failed step, a key of STAGES in `linux.supervision`.
    """
    failed = f"{supervision.STAGES.get(stage, 'starting')} fails with {os.strerror(error)}"
    for path, bad, meaning in _SWITCHES:
        name = os.path.basename(path)
        if (read_small(path) or b"").decode() == bad:
            key = path.removeprefix("/proc/sys/").replace("/", ".")
            return Obstacle(f"{failed}: {meaning}", f"sysctl -w {key}={_GOOD.get(name, _ENOUGH)}", ROOT)
    if stage == supervision.STAGE_PROC:
        covered = covered_proc()
        parts = f" ({', '.join(covered[:3])}{', ...' if len(covered) > 3 else ''})" if covered else ""
        return Obstacle(
            f"{failed}: parts of /proc are covered by other mounts{parts}, as container engines do, and the kernel "
            "then shows no other /proc without them",
            "docker run --security-opt systempaths=unconfined ... (podman: --security-opt unmask=ALL; "
            "Kubernetes: procMount: Unmasked with hostUsers: false)",
            STARTER,
        )
    if read_small("/proc/sys/kernel/seccomp/actions_avail") is not None and seccomp_mode() == _SECCOMP_FILTERED:
        return Obstacle(
            f"{failed}: a seccomp filter forbids it",
            "docker run --security-opt seccomp=unconfined ... (or a profile that allows unshare, clone, clone3, mount)",
            STARTER,
        )
    if in_chroot():
        return Obstacle(
            f"{failed}: this is a chroot, where no user namespace can be made (user_namespaces(7), EPERM)",
            "pivot_root instead of chroot, for example: unshare --mount, or a container engine",
            "whoever made the chroot",
        )
    return Obstacle(failed, "sysctl user.max_user_namespaces user.max_pid_namespaces user.max_mnt_namespaces", ROOT)


def seccomp_mode() -> int:
    """Return the seccomp mode of this process: 0 none, 1 strict, 2 filtered."""
    return int(status().get("Seccomp", 0))


def in_chroot() -> bool:
    """Return whether the root directory of this process differs from that of its mount namespace."""
    return not any(mount.point == "/" for mount in mounts())


def covered_proc() -> list[str]:
    """Return the mount points below /proc, except that of binfmt_misc."""
    points = {mount.point for mount in mounts()}
    return sorted(point for point in points if point.startswith("/proc/") and "binfmt_misc" not in point)


# ---- who the program is ----------------------------------------------------


def other_identity(mode: Privilege, launch: Launch) -> Obstacle:
    """Return the obstacle that a restored process cannot get the user and groups of the dump in a mode."""
    differences = []
    for name, then, mine in (("uid", launch.uid, os.geteuid()), ("gid", launch.gid, os.getegid())):
        if then != mine:
            differences.append(f"{name} {then} (this process has {mine})")
    recorded, mine_here = list(launch.groups), groups_in(mode)
    if recorded and recorded != mine_here:
        differences.append(f"supplementary groups {_list(recorded)} (this process has {_list(mine_here)} there)")
    who = _account(launch.uid)
    if recorded and not differences[:-1] and recorded != mine_here:
        advice = f"make the snapshot in this mode: LIBCRIU_PY_MODE={mode.value} {own_command()} snapshot ..."
    else:
        advice = f"sudo -u {who} {own_command()} run ..., or make a snapshot of your own"
    return Obstacle(
        f"the program ran with {' and '.join(differences)}, which only root with CAP_SETUID and CAP_SETGID can give it",
        advice,
        YOU,
    )


def _list(numbers: list[int]) -> str:
    return ",".join(map(str, numbers)) or "none"


def _account(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"
