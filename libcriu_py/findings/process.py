"""Whether criu can dump a process apart from its descriptors: tracer, seccomp filters, limits, locks, children."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from libcriu_py.findings import mappings, shared_stdio
from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux import processes
from libcriu_py.linux.files import fdinfo, status
from libcriu_py.linux.mounts import known_mounts, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def findings(options: Mapping[str, object]) -> Iterator[Finding]:
    """
    Look at everything that is not a descriptor.

    Args:
        options: The options of the dump.
    """
    yield from _tracer()
    yield from _filters()
    yield from _limits()
    yield from _namespace()
    yield from mappings.findings(options)
    yield from _locks(options)
    yield from _children()


def _tracer() -> Iterator[Finding]:
    """Find a tracer: a task can have only one, which must be criu (ptrace(2))."""
    tracer = status().get("TracerPid", "0")
    if tracer != "0":
        advice = "it traces this process, which criu has to do instead; end strace or the debugger"
        yield Finding("tracer", f"pid {tracer}", Verdict.IMPOSSIBLE, advice)


def _filters() -> Iterator[Finding]:
    """Find seccomp filters; this process may have installed them itself."""
    from libcriu_py.linux.capabilities import capabilities

    count = capabilities().seccomp_filters
    if count:
        from libcriu_py.privilege.obstacles import no_dump

        obstacle = no_dump()
        advice = f"{obstacle.text}; set it up in the copies, or start without it ({obstacle.who}: {obstacle.command})"
        yield Finding("seccomp", f"{count} filter{'s' if count > 1 else ''}", Verdict.IMPOSSIBLE, advice)


def _limits() -> Iterator[Finding]:
    """
    Find resource limits. A criu that this process starts has its limits, with soft ones raised to hard ones.

    The largest image holds anonymous memory; this process writes too, and may rewrite that image.
    """
    import resource

    from libcriu_py.settings import variable

    served = variable("LIBCRIU_PY_SERVICE") is not None
    for name, needed, unit in (
        ("RLIMIT_NOFILE", 0 if served else _descriptors_needed(), "descriptors"),
        ("RLIMIT_FSIZE", _bytes_needed(), "bytes"),
        *((f"RLIMIT_{name}", 0, "") for name in ("AS", "CPU", "DATA", "MEMLOCK", "NPROC", "STACK")),
    ):
        soft, hard = resource.getrlimit(getattr(resource, name))
        if resource.RLIM_INFINITY != hard < needed:
            advice = (
                f"a dump needs about {needed} {unit}; start the program with a higher hard limit "
                f"(ulimit -H{_ULIMIT[name]} {needed}, in a shell that may raise it)"
            )
            yield Finding("limit", f"{name} {hard}", Verdict.NEEDS_HOOK, advice)
        elif soft != resource.RLIM_INFINITY:
            advice = "a copy has its launcher's; if the program sets its own, set it again in an after-hook"
            yield Finding("limit", f"{name} {soft}", Verdict.HANDLED, advice)


def _namespace() -> Iterator[Finding]:
    """Find out whether the program's file is on a mount of a different mount namespace than the current one."""
    program = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        foreign = mount_of(program) not in known_mounts()
    finally:
        os.close(program)
    if foreign:
        advice = (
            "this process entered it after its start (unshare, setns), so criu finds no mount for its program and "
            "libraries; enter the namespace first, then start the program in it (unshare --mount PROGRAM)"
        )
        yield Finding("mount namespace", os.readlink("/proc/self/ns/mnt"), Verdict.IMPOSSIBLE, advice)


_ULIMIT = {"RLIMIT_NOFILE": "n", "RLIMIT_FSIZE": "f"}
_CRIU_DESCRIPTORS = 64
"""Descriptors that criu has open in addition to the program's, rounded up (criu/servicefd.c and the images)."""


_LEAST_BYTES = 1 << 20
"""For log and manifest."""


def _descriptors_needed() -> int:
    return len(os.listdir("/proc/self/fd")) + _CRIU_DESCRIPTORS


def _bytes_needed() -> int:
    told = status()
    kilobytes = sum(int(told[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in told)
    return max(kilobytes << 10, _LEAST_BYTES)


def _locks(options: Mapping[str, object]) -> Iterator[Finding]:
    """
    Find file locks where criu finds them (criu/proc_parse.c, parse_fdinfo).

    /proc/locks only shows who took a lock, not who inherited a descriptor with one, as from flock(1).
    """
    pids = processes.processes()
    for what, taker in dict.fromkeys(lock for pid in pids for lock in _locks_of(pid)):
        if options.get("file_locks"):
            yield Finding("file lock", what, Verdict.HANDLED, "by the option file_locks")
            continue
        advice = 'release it in a before-hook, or use options={"file_locks": True}, which allows one copy at a time'
        if taker > 0 and taker not in pids:
            advice = (
                f"process {taker} took it and this one has inherited the descriptor; start the program without it "
                "(flock --close), or close it in a before-hook"
            )
        yield Finding("file lock", what, Verdict.NEEDS_HOOK, advice)


def _locks_of(pid: int) -> Iterator[tuple[str, int]]:
    """Yield the locks on a process's descriptors: kind and file, and the pid that took the lock."""
    descriptors = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):  # it has ended, or may not be read: leave it to criu
        for name in os.listdir(descriptors):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
                lines = [line for line in fdinfo(name, pid) if line[0] == "lock:"]
                # The line ends there if the taker is outside this pid namespace; criu ignores such locks too.
                for _, _, kind, _, access, taker, *_ in (line for line in lines if len(line) > 1):
                    yield f"{kind} {access} on {os.readlink(f'{descriptors}/{name}')}", int(taker)


def _children() -> Iterator[Finding]:
    for pid in processes.processes()[1:]:
        try:
            told = status(pid)
        except FileNotFoundError:
            continue
        outside = _outside(pid)
        if outside:
            advice = (
                f"it has {outside} open, from another mount namespace, and criu finds no mount for it; start the child "
                "with stdin, stdout and stderr opened by the program, such as subprocess.DEVNULL or PIPE"
            )
            yield Finding("child process", f"{told.get('Name', '?')} (pid {pid})", Verdict.NEEDS_HOOK, advice)
            continue
        zombie = told.get("State", "").startswith("Z")
        advice = "it has ended, but nobody has waited for it; it is dumped too" if zombie else "it is dumped too"
        yield Finding("child process", f"{told.get('Name', '?')} (pid {pid})", Verdict.FINE, advice)


def _outside(pid: int) -> str | None:
    """
    Return a file that a process has open on a mount outside this mount namespace.

    Streams that it shares with this process are replaced together with them, and do not count.
    """
    mounts = known_mounts()
    replaced = {str(item.fd) for item in shared_stdio.find([pid]) if shared_stdio.outside([item])}
    try:
        for name in {*os.listdir(f"/proc/{pid}/fd")} - replaced:
            path = os.readlink(f"/proc/{pid}/fd/{name}")
            if path.startswith("/") and not path.startswith("/memfd:") and mount_of(name, pid) not in mounts:
                return path
    except OSError:
        return None  # it has ended, or may not be read: leave it to criu
    return None
