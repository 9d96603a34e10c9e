"""
What a test may not leave behind: descriptors, zombies, processes, files, mounts, and so namespaces.

Processes are known by a variable in their environment, which stays in /proc whatever becomes of their
parents, also in a restored process, and by their descent from this one. A namespace lives as long as a process in it, a
descriptor, or a mount of it (namespaces(7)).
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

MARKER = "LCP_TEST_SESSION"
"""The environment variable that marks the processes of one test run."""
CACHES = ("kdat-", "locks", "namespaces-", "sound-", "start-")
"""How the names of files begin that the package keeps on a tmpfs from one start to the next."""
GRACE = 5.0
"""Seconds in which processes may end by themselves once their test is over."""

uids = {os.geteuid()}
"""The users whose files are looked at."""


class State(NamedTuple):
    """
    What there is at one moment.

    Attributes:
        fds: Our open descriptors and what they are open on.
        zombies: Children that ended and were not waited for.
        processes: Living processes of this test run, by pid, with their command lines.
        files: Temporary files of the package.
        mounts: Mount points of what this run can have mounted where all see it, by the ids of the mounts.
    """

    fds: dict[int, str]
    zombies: set[int]
    processes: dict[int, str]
    files: set[Path]
    mounts: dict[str, str]


def observe() -> State:
    """Take stock."""
    gc.collect()  # what is only garbage is not leaked
    zombies, processes = _processes()
    return State(_fds(), zombies, processes, _files(), _mounts())


def _fds() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def _processes() -> tuple[set[int], dict[int, str]]:
    mark = f"{MARKER}={os.environ[MARKER]}".encode()
    parents: dict[int, int] = {}
    marked: set[int] = set()
    zombies: set[int] = set()
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            # The name, in parentheses, may hold anything; the state and the parent come after it.
            state, parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:2]
            if state in "ZX":
                if int(parent) == os.getpid():
                    zombies.add(pid)
                continue
            parents[pid] = int(parent)
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                marked.add(pid)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # gone since, or another user's
    ours = {pid for pid in parents if pid != os.getpid() and (pid in marked or _descends(pid, parents))}
    return zombies, {pid: _command(pid) for pid in ours}


def _descends(pid: int, parents: dict[int, int]) -> bool:
    while pid in parents and pid != parents[pid]:
        pid = parents[pid]
        if pid == os.getpid():
            return True
    return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    except OSError:
        return "(gone)"


def _files() -> set[Path]:
    found = set(Path(tempfile.gettempdir()).iterdir())
    for uid in uids:
        own = Path(f"/dev/shm/libcriu_py-{uid}")
        if own.exists():
            found |= {path for path in own.iterdir() if not path.name.startswith(CACHES) and not _in_use(path)}
    return found - _listened_on()


def _listened_on() -> set[Path]:
    """
    Return the sockets under which a standby pool can be reached, of whichever test process.

    A pool of ours that a test left is found as a process.
    """
    accepting = 0x10000  # __SO_ACCEPTCON in include/uapi/linux/net.h
    with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as file:
        sockets = [line.split() for line in list(file)[1:]]
    listening = (fields for fields in sockets if len(fields) > 7 and int(fields[3], 16) & accepting)
    # A socket is known by the name that it was bound to, before it was moved to its own.
    return {Path(fields[7].removesuffix(".new")) for fields in listening}


def _mounts() -> dict[str, str]:
    own = ("/proc", tempfile.gettempdir())
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.split() for line in file]
    return {fields[0]: fields[4] for fields in lines if fields[4] == own[0] or fields[4].startswith(own[1])}


def _in_use(path: Path) -> bool:
    """Return whether a file is named after a process that lives and is not of this run."""
    pids = {int(word) for word in path.name.split("-")[1:2] if word.isdigit()}
    return any(Path(f"/proc/{pid}").exists() and pid not in {os.getpid(), *_processes()[1]} for pid in pids)


def wait_for_end(pids: set[int], seconds: float) -> None:
    """Wait until the processes have ended, as long as is given."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(max(0, deadline - time.monotonic()) * 1000)
        finally:
            os.close(pidfd)


def kill(pids: set[int]) -> None:
    """Kill processes that a test left, and reap those that are children of ours."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for_end(pids, GRACE)
    reap(pids)


def reap(pids: set[int]) -> None:
    """Wait for children that have ended."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def left_behind(before: State) -> list[str]:
    """
    Say what is there that was not before, one sentence each, and clean it up.

    Args:
        before: What there was when the test began.
    """
    now = observe()
    strays = now.processes.keys() - before.processes.keys()
    if strays:
        wait_for_end(strays, GRACE)
        now = observe()
        strays = now.processes.keys() - before.processes.keys()
    deadline = time.monotonic() + GRACE
    while now.files - before.files and time.monotonic() < deadline:
        select.poll().poll(50)  # another test process may be in the middle of a restore
        now = observe()
    said = [f"process {pid} is still running: {now.processes[pid]}" for pid in sorted(strays)]
    said += [f"child {pid} is a zombie: nobody has waited for it" for pid in sorted(now.zombies - before.zombies)]
    said += [f"fd {fd} is open on {target}" for fd, target in sorted(now.fds.items()) if before.fds.get(fd) != target]
    said += [f"something is mounted on {now.mounts[one]}" for one in sorted(now.mounts.keys() - before.mounts.keys())]
    said += [f"{path} is left" for path in sorted(now.files - before.files)]
    kill(strays)
    reap(now.zombies - before.zombies)
    return said
