"""
Become a container, without an engine: `python container_main.py SPEC`, where SPEC is JSON.

It does what container engines do by default: namespaces, a /proc with covered and read-only parts, another
host name, a reduced capability bounding set, a seccomp filter. Then the command runs in it.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
NAMESPACE_FLAGS = 0x7E020000
"""All CLONE_NEW* flags, as the default profiles of Docker and Podman mask them."""
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
SCMP_ACT_ALLOW, SCMP_ACT_ERRNO = 0x7FFF0000, 0x00050000
SCMP_CMP_NE, SCMP_CMP_MASKED_EQ = 1, 7
AF_VSOCK = 40

COVERED = ("/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""maskedPaths and readonlyPaths of the engines' default configuration."""

libc = ctypes.CDLL(None, use_errno=True)


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


def call(name: str, *arguments: Any) -> None:
    """Call a function of the C library that returns 0 or sets errno."""
    if getattr(libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """Mount a file system."""
    call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def set_read_only(place: str, flags: int, *, again: bool = True) -> None:
    """Make a mount read-only, or no longer."""
    attributes = (ctypes.c_uint64 * 4)(*((MOUNT_ATTR_RDONLY, 0) if again else (0, MOUNT_ATTR_RDONLY)))
    call("syscall", MOUNT_SETATTR, AT_FDCWD, place.encode(), flags, attributes, ctypes.sizeof(attributes))


def change_root(layers: list[str], options: str) -> None:
    """
    Have an overlay as the root, as engines do: the first layer is written to, below all is what was the root.

    Layers are outside of what was the root's file system, with which the kernel would find them to overlap.
    """
    own = layers[0]
    lower = ":".join([*(f"{layer}/upper" for layer in layers[1:]), "/"])
    for name in ("upper", "work", "root"):
        Path(own, name).mkdir(mode=0o755, exist_ok=True)
    places = f"lowerdir={lower},upperdir={own}/upper,workdir={own}/work"
    mount("overlay", f"{own}/root", "overlay", 0, f"{places},{options}")
    for place in ("/dev", "/sys"):
        mount(place, f"{own}/root{place}", "", MS_BIND | MS_REC)
    os.chdir(f"{own}/root")
    call("pivot_root", b".", b".")
    call("umount2", b".", MNT_DETACH)
    os.chdir("/")


def make_mounts(spec: dict[str, Any]) -> None:
    """Mount /proc as engines do, and take the tmpfs away."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    if spec["layers"]:
        change_root(spec["layers"], spec["overlay"])
    if spec["other_mounts"]:
        mount("more", "/mnt", "tmpfs", 0)
        mount("shm", "/dev/shm", "tmpfs", 0, "mode=1777,size=64m")
    if spec["read_only"]:
        set_read_only("/", AT_RECURSIVE)
    mount("proc", "/proc", "proc", 0, spec["proc"])
    for path in filter(os.path.exists, READ_ONLY if spec["masked"] else ()):
        mount(path, path, "", MS_BIND | MS_REC)
        mount(path, path, "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    for path in filter(os.path.exists, COVERED if spec["masked"] else ()):
        mount("/dev/null", path, "", MS_BIND)
    if not (spec["other_mounts"] or spec["read_only"] or "/dev/shm" in spec["instead"]):
        mount("shm", "/dev/shm", "tmpfs", 0, "mode=1777,size=64m")
    for place, directory in spec["instead"].items():
        mount(directory, place, "", MS_BIND)
        if spec["read_only"]:
            set_read_only(place, 0, again=spec["read_only"] == "all")
    if spec["read_only"]:
        mount("none", "/tmp", "tmpfs", 0, "mode=1777")


class Filter:
    """
    A filter of system calls under construction.

    Args:
        action: What becomes of a call without a rule.
    """

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(ctypes.c_uint32(action)))

    def add(self, name: str, action: int, *comparisons: Comparison) -> None:
        """Add a rule for a call that the library knows; another one has the action of calls without a rule."""
        array = (Comparison * len(comparisons))(*comparisons)
        code = self._library.seccomp_syscall_resolve_name(name.encode())
        if code == -1:
            return
        length = ctypes.c_uint(len(comparisons))
        if self._library.seccomp_rule_add_array(self._context, ctypes.c_uint32(action), code, length, array):
            raise OSError(errno.EINVAL, f"no rule for {name}")

    def load(self) -> None:
        """Have the filter from here on."""
        # SCMP_FLTATR_CTL_NNP: leave it alone
        self._library.seccomp_attr_set(self._context, ctypes.c_int(3), ctypes.c_uint32(0))
        if self._library.seccomp_load(self._context):
            raise OSError(errno.EPERM, "the filter cannot be loaded")


def filter_calls(profile: str, capabilities: set[str]) -> None:
    """
    Load a filter that refuses what the default profile of an engine refuses with these capabilities.

    Sources: profiles/seccomp/default.json of moby and pkg/seccomp/seccomp.json of containers/common.
    """
    made = Filter(SCMP_ACT_ALLOW)
    for name, number in refused_calls(profile, capabilities).items():
        made.add(name, SCMP_ACT_ERRNO | number)
    if profile != "podman" and "sys_admin" not in capabilities:
        for bit in (1 << number for number in range(32) if NAMESPACE_FLAGS >> number & 1):
            made.add("clone", SCMP_ACT_ERRNO | errno.EPERM, Comparison(0, SCMP_CMP_MASKED_EQ, bit, bit))
    made.load()


def allow_calls(profile: str, calls: set[str]) -> None:
    """Load a filter as the engines', which refuses whatever is not in the list of their default profiles."""
    if profile == "podman":
        made = Filter(SCMP_ACT_ERRNO | errno.ENOSYS)
        calls -= {"ptrace", "process_vm_readv", "process_vm_writev", "modify_ldt"}
        calls |= {"clone", "clone3", "unshare", "setns", "mount", "umount2", "pivot_root"}
    else:
        made = Filter(SCMP_ACT_ERRNO | errno.EPERM)
        made.add("clone", SCMP_ACT_ALLOW, Comparison(0, SCMP_CMP_MASKED_EQ, NAMESPACE_FLAGS, 0))
        made.add("clone3", SCMP_ACT_ERRNO | errno.ENOSYS)
    for name in calls:
        made.add(name, SCMP_ACT_ALLOW)
    made.add("socket", SCMP_ACT_ALLOW, Comparison(0, SCMP_CMP_NE, AF_VSOCK))
    made.load()


def refused_calls(profile: str, capabilities: set[str]) -> dict[str, int]:
    """Name the system calls that a profile refuses whatever their arguments, and with what."""
    tracing: tuple[str, ...] = ("kcmp", "process_madvise")
    mounting = ("unshare", "setns", "mount", "umount2", "mount_setattr", "move_mount", "open_tree", "fsopen")
    refused = dict.fromkeys(("userfaultfd", "keyctl", "add_key", "perf_event_open", "bpf"), errno.EPERM)
    if profile == "podman":
        tracing += ("process_vm_readv", "process_vm_writev", "ptrace")
    elif "sys_admin" not in capabilities:
        refused |= dict.fromkeys(mounting, errno.EPERM)
        refused["clone3"] = errno.ENOSYS
    if "sys_ptrace" not in capabilities:
        refused |= dict.fromkeys(tracing, errno.EPERM)
    if profile == "docker+clone3":
        del refused["clone3"]
    return refused


def become_user(spec: dict[str, Any]) -> None:
    """Take away the capabilities and rights that the container does not have."""
    if spec["capabilities"] is not None:
        for number in range(spec["last_capability"] + 1):
            if number not in spec["capabilities"]:
                libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0)
    if spec["uid"] != 0:
        os.setgroups([])
        os.setresgid(spec["gid"], spec["gid"], spec["gid"])
        os.setresuid(spec["uid"], spec["uid"], spec["uid"])
    if spec["no_new_privs"]:
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def in_container(spec: dict[str, Any]) -> None:
    """Be pid 1 of the container, or its child."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if spec["own_session"]:
        os.setsid()  # as runc does
    make_mounts(spec)
    call("sethostname", spec["hostname"].encode(), len(spec["hostname"]))
    if not spec["pid_1"]:
        child = os.fork()
        if child:
            status = 0
            while True:  # reap orphans until the command has ended; then the kernel ends the rest
                pid, ended = os.wait()
                if pid == child:
                    status = os.waitstatus_to_exitcode(ended)
                    break
            os._exit(status & 0xFF if status >= 0 else 128 - status)
        for _ in range(spec["busy_pids"]):  # so many pids are used up, and gone again
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
    if spec["seccomp"]:
        filter_calls(spec["seccomp"], set(spec["capability_names"]))
    become_user(spec)
    if spec["listed_calls"]:
        allow_calls(spec["listed_calls"], set(spec["calls"]))
    os.chdir(spec["cwd"])
    os.execvpe(spec["argv"][0], spec["argv"], os.environ)


def main() -> int:
    """Make the namespaces and wait for what runs in them."""
    spec = json.loads(sys.argv[1])
    call("unshare", CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC)
    pid = os.fork()
    if pid == 0:
        try:
            in_container(spec)
        except BaseException as error:  # noqa: BLE001 - the child must not go on as the parent
            os.write(2, f"no container: {error!r}\n".encode())
            os._exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
