"""
Whether criu can dump each open descriptor.

criu's rules are in criu/files.c (`dump_one_file`) and the files that it calls. The advice names the option or the
change that helps.
"""

from __future__ import annotations

import fcntl
import os
import stat
from typing import TYPE_CHECKING

from libcriu_py.findings import shared_stdio, sockets, tracing
from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux.files import fdinfo
from libcriu_py.linux.mounts import known_mounts, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GHOST_LIMIT = 1 << 20
"""Size of a deleted file, in bytes, up to which criu saves it by default (--ghost-limit)."""

_ANONYMOUS = {
    "[eventpoll]": "epoll",
    "[eventfd]": "eventfd",
    "[signalfd]": "signalfd",
    "[timerfd]": "timerfd",
    "[pidfd]": "pidfd",
    "inotify": "inotify",
    "[fanotify]": "fanotify",
}
# Major numbers of character devices that criu dumps (criu/files.c, dump_chrdev): memory, terminals.
_MEMORY, _TERMINALS = 1, frozenset({4, 5, *range(128, 144), 204})
_TUN = os.makedev(10, 200)
_STDIO = (0, 1, 2)
_CAP_DAC_READ_SEARCH = 2
_BLOCK = 512
"""Bytes of `st_blocks`."""


class _Descriptor:
    """An open descriptor of this process."""

    def __init__(self, fd: int, link: str) -> None:
        self.fd = fd
        self.link = link
        self.status = os.fstat(fd)

    def judge(self, kind: str, verdict: Verdict, advice: str = "", what: str | None = None) -> Finding:
        """Return the finding."""
        return Finding(kind, what or self.link, verdict, advice, self.fd, tracing.stack_of(self.fd, self.link))

    def fine(self, kind: str, advice: str = "") -> Finding:
        """Return the finding that it can be dumped."""
        return self.judge(kind, Verdict.FINE, advice)


def open_descriptors() -> dict[int, str]:
    """Return the open descriptors, with their links in /proc."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def ghost_limit(options: Mapping[str, object]) -> int:
    """Return the size of a deleted file, in bytes, up to which criu saves it."""
    limit = options.get("ghost_limit")
    return limit if isinstance(limit, int) and limit else GHOST_LIMIT


def findings(options: Mapping[str, object]) -> Iterator[Finding]:
    """
    Look at every open descriptor of this process.

    Args:
        options: The options of the dump.
    """
    mounts = known_mounts()
    state = sockets.Sockets(options)
    streams = {*_STDIO, *(item.fd for item in shared_stdio.find([os.getpid()]))}
    for fd, link in sorted(open_descriptors().items()):
        descriptor = _Descriptor(fd, link)
        if fd in streams:
            yield descriptor.judge("standard stream", Verdict.HANDLED)
        elif link.startswith("socket:"):
            kind, what, verdict, advice = state.judge(fd, descriptor.status.st_ino)
            yield descriptor.judge(kind, verdict, advice, what)
        elif link.startswith("anon_inode:"):
            yield _anonymous(descriptor, options)
        elif link.startswith("pipe:"):
            yield descriptor.fine("pipe")
        elif link.startswith("/memfd:"):
            yield descriptor.fine("memfd")
        elif link.startswith("/"):
            yield _with_path(descriptor, mounts, options)
        else:
            yield descriptor.fine("namespace or other kernel object")


def _anonymous(descriptor: _Descriptor, options: Mapping[str, object]) -> Finding:
    name = descriptor.link.removeprefix("anon_inode:")
    if name == "inotify" and not options.get("force_irmap") and _watches(descriptor.fd) and not _opens_handles():
        advice = (
            "criu finds watched files by handle, for which it needs CAP_DAC_READ_SEARCH outside any user namespace; "
            "close it in a before-hook and watch again in an after-hook, or dump as root"
        )
        return descriptor.judge("inotify", Verdict.NEEDS_HOOK, advice)
    if name in _ANONYMOUS:
        return descriptor.fine(_ANONYMOUS[name])
    if name == "[io_uring]":
        # libuv 1.49 and later use one for epoll_ctl whatever the variable says (src/unix/linux.c, uv__use_io_uring).
        advice = (
            "criu does not support io_uring; close it in a hook, or avoid it: set UV_USE_IO_URING=0 for uvloop up to "
            "0.21, and use asyncio's own event loop instead of later versions"
        )
        return descriptor.judge("io_uring", Verdict.IMPOSSIBLE, advice)
    return descriptor.judge("kernel object", Verdict.IMPOSSIBLE, "criu cannot dump it; close it in a before-hook")


def _watches(fd: int) -> bool:
    return any(words[0] == "inotify" for words in fdinfo(fd))


def _opens_handles() -> bool:
    """Return whether a criu of this process can open files by handle (open_by_handle_at(2); criu/fsnotify.c)."""
    from libcriu_py.linux.capabilities import capabilities

    return bool(capabilities().permitted >> _CAP_DAC_READ_SEARCH & 1) and not in_user_namespace()


def in_user_namespace() -> bool:
    """Return whether this is not the initial user namespace, the only one that maps all ids (user_namespaces(7))."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


def _with_path(descriptor: _Descriptor, mounts: frozenset[int], options: Mapping[str, object]) -> Finding:
    mode = descriptor.status.st_mode
    device = _device(descriptor) if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else None
    # criu dumps memory devices by path, but not terminals (criu/files.c, dump_chrdev).
    if device is not None and (device.kind != "device" or device.verdict is Verdict.IMPOSSIBLE):
        return device
    if mount_of(descriptor.fd) not in mounts:
        advice = (
            "it was opened in another mount namespace and inherited, and criu finds no mount for it; "
            f"start the program without it ({descriptor.fd}<&- in a shell), or close it"
        )
        return descriptor.judge("inherited file", Verdict.NEEDS_HOOK, advice)
    if device is not None:
        return device
    if not stat.S_ISREG(mode):
        return descriptor.fine("directory" if stat.S_ISDIR(mode) else "named pipe")
    return _regular(descriptor, options)


def _regular(descriptor: _Descriptor, options: Mapping[str, object]) -> Finding:
    allowed = ghost_limit(options)
    # The limit applies to allocated blocks, not to the size (criu/files-reg.c, dump_ghost_remap).
    size = descriptor.status.st_blocks * _BLOCK
    if descriptor.status.st_nlink == 0 and size > allowed:
        advice = (
            f"it is deleted and has {size} bytes, and criu saves at most {allowed}; close it, "
            f'or use options={{"ghost_limit": {size}}}'
        )
        return descriptor.judge("deleted file", Verdict.NEEDS_HOOK, advice)
    if descriptor.status.st_nlink == 0:
        return descriptor.fine("deleted file", "its content is saved in the snapshot")
    writing = fcntl.fcntl(descriptor.fd, fcntl.F_GETFL) & os.O_ACCMODE
    advice = "at a restore it must have the size that it has at the dump; reopen it in hooks if it grows"
    return descriptor.fine("file", advice if writing else "")


def _device(descriptor: _Descriptor) -> Finding:
    device, path = descriptor.status.st_rdev, descriptor.link
    if stat.S_ISCHR(descriptor.status.st_mode):
        if os.major(device) == _MEMORY or device == _TUN:
            return descriptor.fine("device")
        if os.major(device) in _TERMINALS:
            return descriptor.judge(
                "terminal",
                Verdict.FINE,
                "a restore needs a terminal to put in its place; close it if you do not need it",
            )
    if path.startswith(("/dev/nvidia", "/dev/dri/", "/dev/kfd")):
        advice = "criu cannot dump GPU state; use the GPU only in copies, or in a child that has ended"
        return descriptor.judge("GPU", Verdict.IMPOSSIBLE, advice)
    return descriptor.judge("device", Verdict.IMPOSSIBLE, "criu cannot dump it; close it in a before-hook")
