"""Starting a program under a supervisor, which can give it its own namespaces (csrc/supervise)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.ffi import checked, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py._libcriu import CData

NS_USER: int = lib.LCP_NS_USER
NS_PID: int = lib.LCP_NS_PID
STAGE_PROC: int = lib.LCP_STAGE_PROC
STAGES_OF_NAMESPACES = frozenset(
    {lib.LCP_STAGE_UNSHARE, lib.LCP_STAGE_IDMAP, lib.LCP_STAGE_PROC, lib.LCP_STAGE_LAST_PID, lib.LCP_STAGE_CAPABILITIES}
)
STAGES: dict[int, str] = {
    lib.LCP_STAGE_UNSHARE: "making the namespaces",
    lib.LCP_STAGE_IDMAP: "mapping the user and group id",
    lib.LCP_STAGE_FORK: "starting a process",
    lib.LCP_STAGE_PROC: "mounting /proc",
    lib.LCP_STAGE_LAST_PID: "setting the first pid of the namespace",
    lib.LCP_STAGE_CAPABILITIES: "handing criu its capability",
    lib.LCP_STAGE_EXEC: "executing the program",
    lib.LCP_STAGE_RESTORE: "restoring",
    lib.LCP_STAGE_SERVICE: "listening for the program's checkpoint",
}


_LOOKS_EVERY = 0.5
"""Seconds."""


class CriuService(NamedTuple):
    """The criu that a supervisor starts when its program asks for a dump."""

    name: str
    """The abstract socket to connect to."""
    criu: str
    env: Mapping[bytes, bytes]


class Event(NamedTuple):
    """A message of a supervisor about its program (`struct lcp_event` in csrc/supervise)."""

    kind: int
    value: int
    error: int
    stage: int
    pidfd: int | None


def supervise(
    *,
    namespaces: int,
    ambient: int,
    last_pid: int,
    argv: Sequence[bytes],
    env: Mapping[bytes, bytes],
    service: CriuService | None,
) -> int:
    """
    Start a program under a supervisor; both end with this process.

    Args:
        namespaces: NS_USER | NS_PID, or 0 for the caller's own.
        ambient: Ambient capabilities of the program's criu, as a bit mask.
        last_pid: The pid after which those of a new namespace begin; 0 leaves them alone.
        argv: The program and its arguments.
        env: Its environment.
        service: The criu that it may ask for; None for none.

    Returns:
        A socket that receives the supervisor's events, for `next_event`.

    Raises:
        OSError: The supervisor could not be started.
    """
    arguments, _kept_arguments = _strings(argv)  # alive as long as the job points into them
    variables, _kept_variables = _strings(_variables(env))
    job: CData = ffi.new("struct lcp_job *")
    job.namespaces = namespaces
    job.flags = lib.LCP_DIE_WITH_CALLER
    job.ambient = ambient
    job.last_pid = last_pid
    job.argv = arguments
    job.env = variables
    if service is not None:
        name = ffi.new("char[]", service.name.encode("ascii"))
        command, _kept_command = _strings([os.fsencode(service.criu), b"swrk"])
        criu_env, _kept_criu_env = _strings(_variables(service.env))
        job.service, job.criu_argv, job.criu_env = name, command, criu_env
    channel = ffi.new("int *")
    checked(lib.lcp_supervise(job, channel))
    return int(channel[0])


def next_event(channel: int, timeout: float | None) -> Event | None:
    """
    Wait for the next event.

    Args:
        channel: The socket from `supervise`.
        timeout: In seconds; None waits for ever.

    Returns:
        The event; None after the timeout.

    Raises:
        BrokenPipeError: The supervisor is gone.
        InterruptedError: A signal arrived.
    """
    event: CData = ffi.new("struct lcp_event *")
    pidfd = ffi.new("int *")
    milliseconds = -1 if timeout is None else max(0, -int(-timeout * 1000 // 1))
    if checked(lib.lcp_next_event(channel, milliseconds, event, pidfd)) == 0:
        return None
    received = int(pidfd[0])
    return Event(event.kind, event.value, event.error, event.stage, received if received >= 0 else None)


def await_start(channel: int) -> tuple[Event, int]:
    """
    Wait until a supervisor reports that its program runs, or why it could not be started.

    Returns:
        The event, and the supervisor's pid; 0 if there is no supervisor.

    Raises:
        BrokenPipeError: The supervisor was killed first.
    """
    supervisor = 0
    first: Event | None = None
    # The pid may come after the event: another process sends it.
    while first is None or supervisor == 0:
        try:
            event = next_event(channel, _LOOKS_EVERY)
        except InterruptedError:
            continue  # the signal's handler has run
        except BrokenPipeError:
            if first is None:
                if supervisor:
                    reap(supervisor, wait=True)
                raise
            break  # there never was a supervisor
        if event is None:
            lib.lcp_continue_children()  # a supervisor that was stopped would tell nothing
        elif event.kind == lib.LCP_EVENT_SUPERVISED:
            supervisor = event.value
        else:
            first = event
    return first, supervisor


def reap(child: int, *, wait: bool) -> bool:
    """
    Reap a child of this process.

    Args:
        child: Its pid.
        wait: Whether to block until it ends.

    Returns:
        True if it has ended.
    """
    try:
        pid, _ = os.waitpid(child, 0 if wait else os.WNOHANG)
    except ChildProcessError:
        return True  # SIGCHLD is ignored, or somebody waited for every child
    return pid != 0


def mirror(channel: int, pidfd: int, *, terminal: bool) -> int:
    """
    Stand in for a program until it ends: pass signals on and stop when it stops. Return its wait status.

    Args:
        channel: The socket from `supervise`.
        pidfd: A pidfd of the program.
        terminal: Whether to pass on the terminal's signals too, as a program in another session needs.

    Raises:
        BrokenPipeError: The supervisor is gone.
    """
    status = ffi.new("int *")
    checked(lib.lcp_proxy(channel, pidfd, terminal, ffi.NULL, status))
    return int(status[0])


def probe_namespaces(namespaces: int) -> tuple[int, int]:
    """Try to make namespaces in a child; return (0, 0) if that works, else the errno and the stage."""
    stage = ffi.new("int *")
    result = lib.lcp_probe_namespaces(namespaces, stage)
    return (0, 0) if result == 0 else (-result, int(stage[0]))


def _strings(items: Sequence[bytes]) -> tuple[CData, list[CData]]:
    """Make a NULL-terminated array of C strings; the list keeps these alive."""
    kept = [ffi.new("char[]", item) for item in items]
    return ffi.new("char *[]", [*kept, ffi.NULL]), kept


def _variables(env: Mapping[bytes, bytes]) -> list[bytes]:
    return [name + b"=" + value for name, value in env.items()]
