"""
Private directories on a tmpfs, for criu's cache of kernel features and the logs of running restores.

In unprivileged mode CRIU keeps its cache (`criu.kdat`) in XDG_RUNTIME_DIR, and only on a tmpfs (`kerndat_save_cache` in
criu/kerndat.c). Without the cache each restore probes the kernel, 8 to 20 ms. It fits one build of criu, so each build
has its own directory.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import TYPE_CHECKING

from libcriu_py.errors import CriuError
from libcriu_py.linux.capabilities import capabilities

if TYPE_CHECKING:
    from collections.abc import Mapping


_TMPFS = "/dev/shm"  # noqa: S108 - what is below it is checked to be ours
_STALE = 3600  # seconds; a restore takes less than one
_FAULT = b"130"
"""
FI_NO_BREAKPOINTS of criu/include/fault-injection.h makes criu stop tasks at system calls, not hardware breakpoints.

A hardware breakpoint is a perf event. If the machine had none for a second, the first makes the kernel wait for an RCU
grace period (`account_event` in kernel/events/core.c): 15 ms, more than the rest of a small restore.
"""
_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def private_directory() -> str:
    """
    Return the path of this user's directory on a tmpfs; make it if it is missing.

    Raises:
        CriuError: The path exists and is not a private directory of this user.
    """
    is_usable = os.path.isdir(_TMPFS) and os.access(_TMPFS, os.W_OK)
    base = _TMPFS if is_usable else os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108
    return _own_directory(os.path.join(base, f"libcriu_py-{os.geteuid()}"))


def _own_directory(path: str) -> str:
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        status = os.lstat(path)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
            message = (
                f"{path} is not a directory that only uid {os.geteuid()} may enter, and criu's files would not be "
                f"private there; remove it: rm -r {path}"
            )
            raise CriuError(message) from None
    return path


def criu_environment(criu: str) -> Mapping[bytes, bytes]:
    """
    Return the environment for a criu program: its cache directory, a PATH and `_FAULT`; nothing from the caller's.

    Args:
        criu: The program's path.
    """
    status = os.stat(criu)
    build = f"kdat-{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}"
    if capabilities().seccomp_filters:
        build += "-filtered"  # under a filter criu finds other kernel features
    cache = _own_directory(os.path.join(private_directory(), build))
    return {b"XDG_RUNTIME_DIR": os.fsencode(cache), b"PATH": _PATH, b"CRIU_FAULT": _FAULT}


def dump_environment(criu: str) -> Mapping[bytes, bytes]:
    """
    Return the environment for a criu program that dumps: it leaves build-ids out of the images.

    To compare build-ids, a restore maps each library, 25 us apiece (`validate_with_build_id` in criu/files-reg.c). The
    launch record has size and mtime of these files instead, which are compared before criu starts.

    Args:
        criu: The program's path.
    """
    environment = criu_environment(criu)
    path = os.path.join(os.fsdecode(environment[b"XDG_RUNTIME_DIR"]), "dump.conf")
    if not os.path.exists(path):
        _write(path, b"file-validation filesize\n")
    return {**environment, b"CRIU_CONFIG_FILE": os.fsencode(path)}


def _write(path: str, content: bytes) -> None:
    """Write a small file in one step; an error names it, or nobody would think of the tmpfs as what is full."""
    own = f"{path}.{os.getpid()}"
    try:
        with open(own, "wb", buffering=0) as file:
            file.write(content)
        os.replace(own, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(own)
        raise OSError(error.errno, error.strerror, path) from None


def sweep() -> None:
    """Remove work directories that killed restores left behind an hour ago or earlier."""
    base = private_directory()
    for name in os.listdir(base):
        path = os.path.join(base, name)
        # A pid in the name would not help: a container may share the tmpfs but not the pids.
        if not name.startswith("work-"):
            continue
        try:
            if os.stat(path).st_mtime < time.time() - _STALE:
                _remove(path)
        except FileNotFoundError:
            continue  # its restore has ended, or another sweep was faster


def _remove(directory: str) -> None:
    for name in os.listdir(directory):
        os.unlink(os.path.join(directory, name))
    os.rmdir(directory)
