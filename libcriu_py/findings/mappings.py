"""Whether criu can dump what a process has mapped: files, devices, shared memory."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.findings.descriptors import ghost_limit, in_user_namespace
from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.linux.mounts import known_mounts, mount_of, mounts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DELETED = " (deleted)"
_ADVICE = {
    **dict.fromkeys(
        ("tmpfs", "ramfs"),
        "it is gone after a reboot, but a copy needs it unchanged; keep mapped files on disk",
    ),
    **dict.fromkeys(
        ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "glusterfs", "afs", "lustre", "fuse", "fuseblk"),
        "a copy needs it mounted at the same place, and the file with its present size and time",
    ),
}
"""Advice for files on file systems that may be missing later, by their type."""


def findings(options: Mapping[str, object]) -> Iterator[Finding]:
    """
    Look at what this process has mapped.

    Args:
        options: The options of the dump.
    """
    sizes: dict[str, int] = {}
    devices: dict[str, str] = {}
    for mapped in mapped_ranges():
        if mapped.path.startswith(("/", "anon_inode:")):
            sizes[mapped.path] = sizes.get(mapped.path, 0) + mapped.size
            devices[mapped.path] = mapped.device
    for path, size in sizes.items():
        finding = _mapping(path, size, ghost_limit(options))
        if finding is not None:
            yield finding
    yield from _elsewhere(devices)
    if in_user_namespace():
        yield from _on_layers(devices)


def _elsewhere(devices: Mapping[str, str]) -> Iterator[Finding]:
    """Yield mapped files on file systems that may be missing or differ where a copy is restored, by kind."""
    kinds = {mount.device: mount.kind.partition(".")[0] for mount in mounts()}
    found: dict[str, list[str]] = {}
    for path, device in devices.items():
        kind = kinds.get(device, "")
        if path.startswith("/") and not path.endswith(_DELETED) and kind in _ADVICE:
            found.setdefault(kind, []).append(path)
    for kind, paths in found.items():
        others = f", as are {len(paths) - 1} other mapped files" if len(paths) > 1 else ""
        yield Finding("mapping", paths[0], Verdict.FINE, f"it is on {kind}{others}: {_ADVICE[kind]}")


def _on_layers(devices: Mapping[str, str]) -> Iterator[Finding]:
    """
    Find mapped files that criu does not recognise by their paths (`vma_get_mapfile_user` in criu/proc_parse.c).

    criu uses paths if it may not open /proc/PID/map_files (proc_map_files_get_link, fs/proc/base.c). On an overlay of
    several file systems, stat returns a different device than the kernel's (ovl_map_dev_ino, fs/overlayfs/inode.c).
    """
    found = [path for path, device in devices.items() if path.startswith("/") and _has_two_devices(path, device)]
    if found:
        advice = (
            f"it is one of {len(found)} on an overlay whose layers are on several file systems, where criu does not "
            "recognise mapped files without CAP_CHECKPOINT_RESTORE outside any user namespace; mount the overlay with "
            "xino=on or keep its layers on one file system, or dump as root or with a file-capable criu"
        )
        yield Finding("mapping", found[0], Verdict.IMPOSSIBLE, advice)


def _has_two_devices(path: str, device: str) -> bool:
    major, minor = (int(part, 16) for part in device.split(":"))
    try:
        if os.stat(path).st_dev == os.makedev(major, minor):
            return False
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return False  # deleted or not a file: judged by its name
    try:
        return mount_of(fd) in known_mounts("overlay")
    finally:
        os.close(fd)


def _mapping(path: str, size: int, allowed: int) -> Finding | None:
    if path.startswith(("anon_inode:", "/dev/nvidia", "/dev/dri/", "/dev/kfd")):
        return Finding("mapping", path, Verdict.IMPOSSIBLE, "criu cannot dump memory of this device or kernel object")
    if path.startswith("/SYSV"):
        advice = "System V shared memory needs an IPC namespace of its own; use multiprocessing.shared_memory"
        return Finding("shared memory", path, Verdict.IMPOSSIBLE, advice)
    if path.startswith("/dev/shm/sem.") and in_user_namespace():  # noqa: S108
        # It is deleted, so criu reads it through /proc/PID/map_files (proc_map_files_get_link, fs/proc/base.c).
        advice = (
            "criu may not read a POSIX semaphore without CAP_CHECKPOINT_RESTORE outside any user namespace; create "
            "locks, queues and pools of multiprocessing after the checkpoint, or dump as root or with a capable criu"
        )
        return Finding("semaphore", path.removesuffix(_DELETED), Verdict.NEEDS_HOOK, advice)
    anonymous = path.startswith(("/memfd:", "/dev/zero", "/dev/shm/"))  # noqa: S108 - looked at only
    if path.endswith(_DELETED) and not anonymous and size > allowed:
        advice = (
            "the file was deleted or replaced after it was mapped, as in an upgrade, and is too large to save; "
            f'restart the program, or use options={{"ghost_limit": {size}}}'
        )
        return Finding("deleted mapping", path.removesuffix(_DELETED), Verdict.NEEDS_HOOK, advice)
    return None
