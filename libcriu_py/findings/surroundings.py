"""What a dump has to save beside descriptors and mappings: locks, children; and what stands in its way."""

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
    Look at what is not a descriptor.

    Args:
        options: Those of the dump.
    """
    yield from _tracer()
    yield from _filters()
    yield from _limits()
    yield from _namespace()
    yield from mappings.findings(options)
    yield from _locks(options)
    yield from _children()


def _tracer() -> Iterator[Finding]:
    """Find a tracer: a task has one, and criu has to be it (ptrace(2))."""
    tracer = status().get("TracerPid", "0")
    if tracer != "0":
        advice = "it traces this process, as criu would have to; end strace or the debugger"
        yield Finding("tracer", f"pid {tracer}", Verdict.IMPOSSIBLE, advice)


def _filters() -> Iterator[Finding]:
    """Seccomp filters, which this process may have set up for itself since it began."""
    from libcriu_py.linux.capabilities import capabilities

    count = capabilities().seccomp_filters
    if count:
        from libcriu_py.privilege.obstacles import no_dump

        obstacle = no_dump()
        advice = f"{obstacle.text}; set it up in the copies, or start without it ({obstacle.who}: {obstacle.command})"
        yield Finding("seccomp", f"{count} filter{'s' if count > 1 else ''}", Verdict.IMPOSSIBLE, advice)


def _limits() -> Iterator[Finding]:
    """
    Resource limits. criu has those of this process, its soft ones raised to the hard ones, unless it is served one.

    The largest image is of anonymous memory; this process writes too, and may rewrite that one.
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
                f"a dump needs some {needed} {unit}; start the program with a higher hard limit "
                f"(ulimit -H{_ULIMIT[name]} {needed}, in a shell that may)"
            )
            yield Finding("limit", f"{name} {hard}", Verdict.NEEDS_HOOK, advice)
        elif soft != resource.RLIM_INFINITY:
            advice = "a copy has that of its restoring side; set it in an after-hook where it is the program's own"
            yield Finding("limit", f"{name} {soft}", Verdict.HANDLED, advice)


def _namespace() -> Iterator[Finding]:
    """Find out whether the program itself is on a mount of another mount namespace than this process is in now."""
    program = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    try:
        foreign = mount_of(program) not in known_mounts()
    finally:
        os.close(program)
    if foreign:
        advice = (
            "this process has entered it after its start (unshare, setns), and criu finds no mount for its program and "
            "libraries; enter the namespace first, and start the program in it (unshare --mount PROGRAM)"
        )
        yield Finding("mount namespace", os.readlink("/proc/self/ns/mnt"), Verdict.IMPOSSIBLE, advice)


_ULIMIT = {"RLIMIT_NOFILE": "n", "RLIMIT_FSIZE": "f"}
_CRIU_DESCRIPTORS = 64
"""What criu has open beside those of the program, rounded up (criu/servicefd.c and the images)."""


_LEAST_BYTES = 1 << 20
"""Of log and manifest."""


def _descriptors_needed() -> int:
    return len(os.listdir("/proc/self/fd")) + _CRIU_DESCRIPTORS


def _bytes_needed() -> int:
    told = status()
    kilobytes = sum(int(told[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in told)
    return max(kilobytes << 10, _LEAST_BYTES)


def _locks(options: Mapping[str, object]) -> Iterator[Finding]:
    """
    Locks on files, which are those that criu finds (criu/proc_parse.c, parse_fdinfo).

    /proc/locks has only who took a lock: not that a descriptor with one was inherited, as from flock(1).
    """
    pids = processes.processes()
    for what, taker in dict.fromkeys(lock for pid in pids for lock in _locks_of(pid)):
        if options.get("file_locks"):
            yield Finding("file lock", what, Verdict.HANDLED, "by the option file_locks")
            continue
        advice = 'release it in a before-hook, or options={"file_locks": True}, which allows one copy at a time'
        if taker > 0 and taker not in pids:
            advice = (
                f"process {taker} took it and this one has inherited the descriptor; start the program without that "
                "(flock --close), or close it in a before-hook"
            )
        yield Finding("file lock", what, Verdict.NEEDS_HOOK, advice)


def _locks_of(pid: int) -> Iterator[tuple[str, int]]:
    """Yield the locks that descriptors of a process have: what and where, and the pid of who took it."""
    descriptors = f"/proc/{pid}/fd"
    with contextlib.suppress(OSError):  # it has ended, or may not be looked at: criu is to say what it thinks
        for name in os.listdir(descriptors):
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing
                lines = [line for line in fdinfo(name, pid) if line[0] == "lock:"]
                # Nothing follows where who took it is in no pid namespace of ours; criu leaves that out, too.
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
                f"it has {outside} open, from another mount namespace, in which criu finds no mount for it; start it "
                "with stdin, stdout and stderr opened inside the program, such as subprocess.DEVNULL or PIPE"
            )
            yield Finding("child process", f"{told.get('Name', '?')} (pid {pid})", Verdict.NEEDS_HOOK, advice)
            continue
        zombie = told.get("State", "").startswith("Z")
        advice = "it has ended and nobody has waited for it; it is dumped too" if zombie else "it is dumped too"
        yield Finding("child process", f"{told.get('Name', '?')} (pid {pid})", Verdict.FINE, advice)


def _outside(pid: int) -> str | None:
    """
    Return a file that a process has open on a mount that is not in this mount namespace.

    What it shares with our standard streams is replaced together with them.
    """
    mounts = known_mounts()
    replaced = {str(item.fd) for item in shared_stdio.find([pid]) if shared_stdio.outside([item])}
    try:
        for name in {*os.listdir(f"/proc/{pid}/fd")} - replaced:
            path = os.readlink(f"/proc/{pid}/fd/{name}")
            if path.startswith("/") and not path.startswith("/memfd:") and mount_of(name, pid) not in mounts:
                return path
    except OSError:
        return None  # it has ended, or may not be looked at: criu is to say what it thinks
    return None
