"""
Gather the facts that decide whether a process can be dumped and restored.

Each is read from the kernel's own source; None means that it is unknown.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from typing import Any

from libcriu_py.diagnosis import cost, syscalls
from libcriu_py.linux.capabilities import all_capabilities, file_capabilities, names
from libcriu_py.linux.files import read_small, status
from libcriu_py.linux.mounts import mounts
from libcriu_py.privilege import obstacles

_CONFIG = (
    "CONFIG_CHECKPOINT_RESTORE",
    "CONFIG_NAMESPACES",
    "CONFIG_USER_NS",
    "CONFIG_PID_NS",
    "CONFIG_TIME_NS",
    "CONFIG_EVENTFD",
    "CONFIG_EPOLL",
    "CONFIG_FHANDLE",
    "CONFIG_INOTIFY_USER",
    "CONFIG_UNIX_DIAG",
    "CONFIG_INET_DIAG",
    "CONFIG_PACKET_DIAG",
    "CONFIG_NETLINK_DIAG",
    "CONFIG_MEM_SOFT_DIRTY",
    "CONFIG_USERFAULTFD",
)
"""The options that https://criu.org/Linux_kernel requires."""

_PT_INTERP = 3


def gather() -> dict[str, dict[str, Any]]:
    """Return all facts: sections of plain data, ready for JSON."""
    return {
        "criu": _criu(),
        "kernel": _kernel(),
        "process": _process(),
        "namespaces": _namespaces(),
        "security": _security(),
        "proc": _proc(),
        "storage": _storage(),
        "limits": _limits(),
    }


def read(path: str) -> str | None:
    """Return the text of a small file; None if it cannot be read."""
    content = read_small(path)
    return None if content is None else content.strip(b"\0 \n").decode(errors="replace")


# ---- criu ------------------------------------------------------------------


def _criu() -> dict[str, Any]:
    from libcriu_py.criu.client import Criu
    from libcriu_py.criu.find import find_criu
    from libcriu_py.errors import BinaryNotFound, CriuError
    from libcriu_py.privilege.decision import capable_criu

    found: dict[str, Any] = {"path": None, "version": None, "static": None, "problem": None, "libraries": None}
    found |= {"start": None, "least_start": None}
    try:
        path = found["path"] = find_criu()
    except BinaryNotFound as error:
        found["problem"] = str(error)
        return found
    found["static"] = is_static(path)
    found["file_capabilities"] = names(file_capabilities(path))
    capable = capable_criu(path)
    found["capable_path"] = capable if file_capabilities(capable) else None
    try:
        version = Criu(path).version()
    except (CriuError, OSError) as error:
        found["problem"] = str(error)
        return found
    found["version"] = ".".join(map(str, version))
    measured = cost.measure(path)
    if measured is not None:
        found |= {"start": measured.start, "least_start": measured.least}
    found["libraries"] = 0 if found["static"] else cost.libraries(path)
    return found


def is_static(program: str) -> bool | None:
    """Return whether an ELF program needs no dynamic linker (it has no PT_INTERP header)."""
    try:
        with open(program, "rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    if head[:5] != b"\x7fELF\x02" or head[5] != 1:
        return None  # not a 64-bit little-endian program
    (offset,) = struct.unpack_from("<Q", head, 32)
    size, count = struct.unpack_from("<HH", head, 54)
    kinds = [struct.unpack_from("<I", head, offset + size * number)[0] for number in range(count)]
    return _PT_INTERP not in kinds


# ---- kernel ----------------------------------------------------------------


def _kernel() -> dict[str, Any]:
    return {
        "release": os.uname().release,
        "arch": os.uname().machine,
        "config": kernel_config(),
        # Only there with CONFIG_CHECKPOINT_RESTORE (kernel/pid_namespace.c).
        "checkpoint_restore": os.path.exists("/proc/sys/kernel/ns_last_pid"),
        "time_namespaces": os.path.exists("/proc/self/ns/time"),
        "system_calls": syscalls.probe(),
    }


def kernel_config() -> dict[str, str] | None:
    """Return the relevant options of the kernel's build: "y", "m" or "n"; None if no file has them."""
    import gzip

    for path in ("/proc/config.gz", f"/boot/config-{os.uname().release}"):
        opener = gzip.open if path.endswith(".gz") else open
        try:
            with opener(path, "rt", encoding="ascii", errors="replace") as file:
                lines = [line.strip().partition("=") for line in file if line.startswith("CONFIG_")]
        except (OSError, EOFError):
            continue
        values = {name: value for name, _, value in lines}
        return {name: values.get(name, "n") for name in _CONFIG}
    return None


# ---- this process ----------------------------------------------------------


def _process() -> dict[str, Any]:
    lines = status()
    sets = {name: int(lines.get(key, "0"), 16) for name, key in _SETS}
    return {
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "groups": sorted(os.getgroups()),
        "pid": os.getpid(),
        **{name: names(mask) for name, mask in sets.items()},
        "missing_from_bounding": names(all_capabilities() & ~sets["bounding"]),
        "no_new_privs": lines.get("NoNewPrivs") == "1",
        "seccomp": {"0": "none", "1": "strict", "2": "filter"}.get(lines.get("Seccomp", ""), "unknown"),
        "seccomp_filters": int(lines.get("Seccomp_filters", "0")),
        "python": sys.executable,
    }


_SETS = (
    ("effective", "CapEff"),
    ("permitted", "CapPrm"),
    ("inheritable", "CapInh"),
    ("bounding", "CapBnd"),
    ("ambient", "CapAmb"),
)


def _namespaces() -> dict[str, Any]:
    from libcriu_py.linux import supervision

    error, stage = supervision.probe_namespaces(supervision.NS_USER | supervision.NS_PID)
    limits = ("max_user_namespaces", "max_pid_namespaces", "max_mnt_namespaces")
    return {
        "rootless_works": error == 0,
        "rootless_error": None if error == 0 else os.strerror(error),
        "rootless_stage": None if error == 0 else supervision.STAGES.get(stage, "starting"),
        "rootless_errno": error,
        "rootless_stage_number": stage,
        "unprivileged_userns_clone": read("/proc/sys/kernel/unprivileged_userns_clone"),
        "apparmor_restrict_unprivileged_userns": read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        **{name: read(f"/proc/sys/user/{name}") for name in limits},
        "in_user_namespace": (read("/proc/self/uid_map") or "").split() != ["0", "0", "4294967295"],
        "container": obstacles.in_container(),
        "chroot": obstacles.in_chroot(),
    }


def _security() -> dict[str, Any]:
    selinux = read("/sys/fs/selinux/enforce")
    return {
        "yama": read("/proc/sys/kernel/yama/ptrace_scope"),
        "lsm": read("/sys/kernel/security/lsm"),
        "label": read("/proc/self/attr/current"),
        "selinux": None if selinux is None else {"0": "permissive", "1": "enforcing"}.get(selinux),
        "apparmor": read("/sys/module/apparmor/parameters/enabled"),
    }


# ---- mounts ----------------------------------------------------------------


def _proc() -> dict[str, Any]:
    options: set[str] = set()
    for mount in mounts():
        if mount.point == "/proc" and mount.kind == "proc":
            options = {*mount.options, *mount.super_options}  # the last mount is on top
    values = dict(option.partition("=")[::2] for option in options)
    return {
        "hidepid": values.get("hidepid", "off"),
        "subset": values.get("subset"),
        "covered": obstacles.covered_proc(),
        "sys_writable": os.access("/proc/sys/kernel/ns_last_pid", os.W_OK),
    }


def is_tmpfs(path: str) -> bool:
    """Return whether a directory is on a tmpfs; criu keeps its cache of kernel features only there."""
    best, kind = "", ""
    real = os.path.realpath(path)
    for mount in mounts():
        below = real == mount.point or real.startswith(mount.point.rstrip("/") + "/")
        if below and len(mount.point) >= len(best):
            best, kind = mount.point, mount.kind
    return kind == "tmpfs"


def _storage() -> dict[str, Any]:
    from libcriu_py.errors import CriuError
    from libcriu_py.linux.runtime_dir import private_directory

    found: dict[str, Any] = {"cache": None, "cache_on_tmpfs": False, "problem": None}
    try:
        found["cache"] = private_directory()
        found["cache_on_tmpfs"] = is_tmpfs(found["cache"])
    except (CriuError, OSError) as error:
        found["problem"] = str(error)
    for name, path in (("run_is_tmpfs", "/run"), ("dev_shm_is_tmpfs", "/dev/shm")):  # noqa: S108 - only read
        found[name] = os.path.isdir(path) and is_tmpfs(path)
    return found


def _limits() -> dict[str, Any]:
    import resource

    found = {}
    for name in ("NOFILE", "NPROC", "MEMLOCK", "STACK", "AS"):
        with contextlib.suppress(AttributeError):
            values = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            found[name.lower()] = [None if value == resource.RLIM_INFINITY else value for value in values]
    return found
