"""The capabilities of this process and of programs, as the kernel keeps them (capabilities(7))."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.files import read_small, status

if TYPE_CHECKING:
    from collections.abc import Iterator

CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_CHECKPOINT_RESTORE = 40

NAMES = (
    *("cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid"),
    *("cap_setuid", "cap_setpcap", "cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin"),
    *("cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio", "cap_sys_chroot"),
    *("cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource"),
    *("cap_sys_time", "cap_sys_tty_config", "cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control"),
    *("cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend"),
    *("cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore"),
)
"""By number, include/uapi/linux/capability.h."""

YAMA_DESCENDANTS = 1
"""A process may trace its descendants, and processes that name it with PR_SET_PTRACER."""
YAMA_PRIVILEGED = 2
"""Only with CAP_SYS_PTRACE."""
_PR_SET_PTRACER = 0x59616D61  # include/uapi/linux/prctl.h
_ANY = -1


class Capabilities(NamedTuple):
    """The capability sets of a process as bit masks, and what restricts an exec."""

    effective: int
    permitted: int
    bounding: int
    no_new_privs: bool = False
    """Whether an exec ignores file capabilities and set-user-id bits."""
    seccomp_filters: int = 0
    """The number of its seccomp filters."""

    def has(self, number: int) -> bool:
        """Return whether a capability is effective."""
        return bool(self.effective >> number & 1)


def capabilities() -> Capabilities:
    """Read the capabilities of this process from /proc/self/status."""
    found = status()
    return Capabilities(
        effective=int(found.get("CapEff", "0"), 16),
        permitted=int(found.get("CapPrm", "0"), 16),
        bounding=int(found.get("CapBnd", "0"), 16),
        no_new_privs=found.get("NoNewPrivs") == "1",
        seccomp_filters=int(found.get("Seccomp_filters", "0")),
    )


def all_capabilities() -> int:
    """Return the mask of all capabilities of this kernel; those in `NAMES` if /proc/sys is hidden."""
    last = read_small("/proc/sys/kernel/cap_last_cap")
    return (1 << (len(NAMES) if last is None else int(last) + 1)) - 1


def bounding_is_reduced() -> bool:
    """
    Return whether the capability bounding set lacks a capability of this kernel.

    A restore must reduce the set again, which needs CAP_SETPCAP (`restore_creds` in CRIU's pie/restorer.c).
    """
    full = all_capabilities()
    return capabilities().bounding & full != full


def file_capabilities(program: str) -> int:
    """Return the permitted file capabilities of a program, as a bit mask."""
    try:
        data = os.getxattr(program, "security.capability")
    except OSError:
        return 0
    # struct vfs_cap_data, include/uapi/linux/capability.h: magic, then (permitted, inheritable) words.
    return int.from_bytes(data[4:8], "little") | int.from_bytes(data[12:16], "little") << 32


def has_file_capability(criu: str) -> bool:
    """Return whether a criu program carries CAP_CHECKPOINT_RESTORE (or CAP_SYS_ADMIN) as a file capability."""
    carried = file_capabilities(criu)
    return bool(carried >> CAP_CHECKPOINT_RESTORE & 1 or carried >> CAP_SYS_ADMIN & 1)


def needed(*, reduced: bool, dump: bool) -> int:
    """
    Return the least capabilities that criu can work with, as a bit mask.

    Args:
        reduced: Whether a restore has to reduce the bounding set.
        dump: Whether criu is to dump, not only to restore.
    """
    mask = 1 << CAP_CHECKPOINT_RESTORE
    if reduced:
        mask |= 1 << CAP_SETPCAP
    if yama() >= (YAMA_DESCENDANTS if dump else YAMA_PRIVILEGED):
        mask |= 1 << CAP_SYS_PTRACE
    return mask


def yama() -> int:
    """Return Yama's ptrace_scope (Documentation/admin-guide/LSM/Yama.rst); 0 without Yama."""
    return int(read_small("/proc/sys/kernel/yama/ptrace_scope") or 0)


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """
    Let a criu that is not an ancestor trace this process while Yama allows only ancestors.

    Any process of the same user may then trace it, as without Yama.
    """
    if yama() != YAMA_DESCENDANTS:
        yield
        return
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PTRACER, ctypes.c_ulong(_ANY), 0, 0, 0)
    try:
        yield
    finally:
        prctl(_PR_SET_PTRACER, ctypes.c_ulong(0), 0, 0, 0)


def names(mask: int) -> str:
    """Return the names of the capabilities in a mask, joined by commas as for setcap(8)."""
    return ",".join(NAMES[number] if number < len(NAMES) else f"{number}" for number in range(64) if mask >> number & 1)
