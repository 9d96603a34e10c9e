"""Whom a fault hits, and when: after a random time, at a system call, or when /proc or a directory shows a step."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

_PATIENCE = 6.0
_RESUMES_AFTER = 0.7
"""Seconds for which what the user sees stays stopped; helpers are not continued."""
_CALL = re.compile(r"^(?:(\d+) +)?([a-z]\w+)\(")
_NAMED = re.compile(r'^(?:(\d+) +)?prctl\(PR_SET_NAME, "([\w-]+)"')


class Call(NamedTuple):
    """The nth system call of a name that one process makes."""

    name: str
    nth: int

    def injection(self, name: signal.Signals) -> list[str]:
        """Return strace's options that send a signal there."""
        return ["-e", f"trace={self.name}", "-e", f"inject={self.name}:signal={name.name}:when={self.nth}"]


def comm(pid: str | int) -> str:
    """Return the name of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def find(target: str, first: int) -> int | None:
    """
    Return the pid of a target, if there is one.

    Args:
        target: criu, supervisor, watch, publisher, program (which is dumped or restored), or first: what was started.
        first: The pid of that.
    """
    if target == "first":
        return first
    names = {"criu": "criu", "supervisor": "lcp-supervisor", "watch": "lcp-watch"}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid in {first, os.getpid()}:
            continue
        name = comm(pid)
        if target in names:
            is_wanted = name == names[target]
        else:
            is_wanted = _is_program(pid, name) and _publishes(pid) == (target == "publisher")
        if is_wanted and not _asks_version(pid):
            return pid
    return None


def _is_program(pid: int, name: str) -> bool:
    if name.startswith(("lcp-", "criu", "strace", "bash", "libcriu")):
        return False
    with contextlib.suppress(OSError):
        return "python" in os.readlink(f"/proc/{pid}/exe")
    return False


def _publishes(pid: int) -> bool:
    """Return whether this makes the snapshot of a native dump."""
    with contextlib.suppress(OSError):
        return b"libcriu_py.native.publish" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _asks_version(pid: int) -> bool:
    """Return whether this is a criu that is only asked something."""
    with contextlib.suppress(OSError, IndexError):
        parent = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        return comm(pid) == "criu" and comm(parent).startswith("python")
    return False


def await_target(target: str, process: subprocess.Popen[str]) -> int | None:
    """Return the pid of a target as soon as there is one; None if the command ends first."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        pid = find(target, process.pid)
        if pid is not None:
            return pid
    return None


def send(pid: int, number: signal.Signals, *, resume: int) -> None:
    """Send a signal; continue later what the user would continue, and with it what was started, as a shell does."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    if number is signal.SIGSTOP and resume:
        time.sleep(_RESUMES_AFTER)
        for stopped in (pid, resume):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stopped, signal.SIGCONT)


def after(target: str, seconds: float, number: signal.Signals) -> Callable[[subprocess.Popen[str]], None]:
    """Return what signals a target some time after it is there."""

    def strike(process: subprocess.Popen[str]) -> None:
        pid = await_target(target, process)
        time.sleep(seconds)
        if pid is not None:
            send(pid, number, resume=process.pid if target in {"first", "program"} else 0)

    return strike


def at_step(
    target: str, number: signal.Signals, step: Callable[[int], bool]
) -> Callable[[subprocess.Popen[str]], None]:
    """Return what signals a target when a step is reached, which is asked for with its pid."""

    def strike(process: subprocess.Popen[str]) -> None:
        pid = await_target(target, process)
        deadline = time.monotonic() + _PATIENCE
        while pid is not None and process.poll() is None and time.monotonic() < deadline:
            if step(pid):
                send(pid, number, resume=process.pid if target in {"first", "program"} else 0)
                return

    return strike


def calls(log: str, name: str = "", *, about: re.Pattern[str] | None = None) -> list[Call]:
    """
    Return all system calls of one process in the log of strace, in their order.

    Args:
        log: The log.
        name: How the process has named itself; empty for the first one.
        about: What is in the lines of the calls that are wanted.

    Returns:
        Those that no other process in the log reaches, or at least not sooner: strace counts for each process.
    """
    lines = log.splitlines()
    first = _CALL.match(lines[0])
    wanted = first[1] if first is not None else None
    for line in lines:
        named = _NAMED.match(line)
        if named is not None and named[2] == name:
            wanted = named[1]
    counts: dict[tuple[str | None, str], int] = {}
    reached: set[Call] = set()
    others: set[Call] = set()
    found = []
    for line in lines:
        match = _CALL.match(line)
        if match is None or match[2] in {"execve", "exit_group"}:
            continue
        key = (match[1], match[2])
        counts[key] = counts.get(key, 0) + 1
        call = Call(match[2], counts[key])
        if match[1] == wanted and call not in reached and (about is None or about.search(line)):
            found.append(call)
        if match[1] != wanted:
            others.add(call)
        reached.add(call)
    return [call for call in found if call not in others] or found


def counted(log: str) -> set[Call]:
    """Return all system calls of the first process in the log of strace."""
    first = _CALL.match(log)
    names = [match[2] for match in map(_CALL.match, log.splitlines()) if match and first and match[1] == first[1]]
    return {Call(name, nth + 1) for name in set(names) for nth in range(names.count(name))}


def spread(calls: Sequence[Call], count: int) -> list[Call]:
    """Return so many of them at equal distances, from the first to the last."""
    return [calls[round(number * (len(calls) - 1) / max(1, count - 1))] for number in range(count)]
