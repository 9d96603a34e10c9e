"""Containers for tests, made of namespaces, mounts, capabilities and a seccomp filter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from libcriu_py.linux.capabilities import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.system.accounts import Account

DEFAULT = (
    "chown",
    "dac_override",
    "fsetid",
    "fowner",
    "mknod",
    "net_raw",
    "setgid",
    "setuid",
    "setfcap",
    "setpcap",
    "net_bind_service",
    "sys_chroot",
    "kill",
    "audit_write",
)
"""The capabilities that Docker leaves to root in a container."""


def run(
    argv: Sequence[str | Path],
    *,
    account: Account,
    capabilities: Iterable[str] | None = DEFAULT,
    seccomp: str | None = None,
    listed_calls: str | None = None,
    masked: bool = False,
    hostname: str = "container",
    instead: Mapping[str, Path] | None = None,
    no_new_privs: bool = False,
    pid_1: bool = False,
    busy_pids: int = 0,
    own_session: bool = True,
    proc: str = "",
    layers: Sequence[Path] = (),
    overlay: str = "xino=on",
    other_mounts: bool = False,
    read_only: str = "",
    uid: int | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | str = "/",
) -> subprocess.CompletedProcess[str]:
    """
    Run a command in a new container to its end.

    Args:
        argv: The command; its first word is a path.
        account: Whose environment it has, and who runs it.
        capabilities: The bounding set, without "cap_"; None leaves it as it is.
        seccomp: "docker" or "podman": a filter like the default one of that engine.
        listed_calls: "docker" or "podman": allow only what that engine's list has; for an account only with
            `no_new_privs`.
        masked: Cover parts of /proc and make others read-only.
        hostname: The host name.
        instead: Directories to be seen instead of others: {"/run": ...}.
        no_new_privs: Set NO_NEW_PRIVS.
        pid_1: Whether the command itself is pid 1; else it is pid 2.
        busy_pids: How many further pids have been used before.
        proc: Options of the mount of /proc.
        layers: Directories on another file system than the root's: with these an overlay is the root, and the first
            gets what is written to it.
        overlay: Options of its mount. With xino=on files have one device each, as they have by themselves where all
            layers are on one file system, which is how engines keep them.
        other_mounts: Mount one file system more, and the others in another order.
        read_only: "root": all file systems are read-only, except for those of `instead` and a tmpfs in /tmp, and
            /dev/shm is none of its own; "all": those of `instead` too.
        uid: Who runs it instead, who need not be in /etc/passwd, in a group of the same number.
        own_session: Whether a session begins in the container, as it does under an engine.
        env: Variables beside those of a fresh login.
        cwd: Working directory.
    """
    names = None if capabilities is None else list(capabilities)
    spec: dict[str, Any] = {
        "argv": [str(word) for word in argv],
        "uid": account.uid if uid is None else uid,
        "gid": account.gid if uid is None else uid,
        "capabilities": None if names is None else [NAMES.index(f"cap_{name}") for name in names],
        "capability_names": [] if names is None else names,
        "last_capability": int(Path("/proc/sys/kernel/cap_last_cap").read_text(encoding="ascii")),
        "seccomp": seccomp,
        "listed_calls": listed_calls,
        "calls": Path(__file__).with_name("docker_calls.txt").read_text(encoding="ascii").split(),
        "masked": masked,
        "hostname": hostname,
        "instead": {place: str(path) for place, path in (instead or {}).items()},
        "no_new_privs": no_new_privs,
        "pid_1": pid_1,
        "busy_pids": busy_pids,
        "own_session": own_session,
        "proc": proc,
        "layers": list(map(str, layers)),
        "overlay": overlay,
        "other_mounts": other_mounts,
        "read_only": read_only,
        "cwd": str(cwd),
    }
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("container_main.py")), json.dumps(spec)],
        env=account.environment(**(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
