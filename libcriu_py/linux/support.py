"""
The calls of csrc's common, copy and supervise with Python's types and exceptions.

Everything here works on descriptors and processes; libcriu's own functions are in `criu.native`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from libcriu_py._ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py._libcriu import CData

NS_USER: int = lib.LCP_NS_USER
NS_PID: int = lib.LCP_NS_PID
MAX_FDS = 250
"""Descriptors that fit in one message (SCM_MAX_FD of the kernel is 253)."""


class CriuService(NamedTuple):
    """A criu that a supervisor starts when its program asks for one."""

    name: str
    """The abstract socket to connect to."""
    criu: str
    env: Mapping[bytes, bytes]


class Event(NamedTuple):
    """What a supervisor tells of its program."""

    kind: int
    value: int
    error: int
    stage: int
    pidfd: int | None


SUPERVISED: int = lib.LCP_EVENT_SUPERVISED

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


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result


def _ascii(text: CData) -> str:
    return bytes(ffi.string(text)).decode("ascii")  # type: ignore[arg-type]


def _strings(items: Sequence[bytes]) -> tuple[CData, list[CData]]:
    """Make a NULL-terminated array of C strings; the list keeps these alive."""
    kept = [ffi.new("char[]", item) for item in items]
    return ffi.new("char *[]", [*kept, ffi.NULL]), kept


def environment_block(env: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the NAME=VALUE strings of an environment."""
    return [name + b"=" + value for name, value in env.items()]


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
    Start the supervisor of a program, which ends with this process.

    Args:
        namespaces: NS_USER and NS_PID, or 0.
        ambient: Bits of the capabilities for the program's criu.
        last_pid: Pids of a new namespace begin after it; 0 leaves them alone.
        argv: The program.
        env: Its environment.
        service: The criu that it may ask for.

    Returns:
        The socket on which events arrive.

    Raises:
        OSError: No process could be made.
    """
    arguments, _kept_arguments = _strings(argv)  # alive as long as the job points into them
    variables, _kept_variables = _strings(environment_block(env))
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
        criu_env, _kept_criu_env = _strings(environment_block(service.env))
        job.service, job.criu_argv, job.criu_env = name, command, criu_env
    channel = ffi.new("int *")
    _check(lib.lcp_supervise(job, channel))
    return int(channel[0])


def next_event(channel: int, timeout: float | None) -> Event | None:
    """
    Wait for the next event.

    Args:
        channel: What `supervise` returned.
        timeout: Seconds; None waits for ever.

    Returns:
        The event, or None when the time is up.

    Raises:
        BrokenPipeError: The supervisor is gone.
        InterruptedError: A signal arrived.
    """
    event: CData = ffi.new("struct lcp_event *")
    pidfd = ffi.new("int *")
    milliseconds = -1 if timeout is None else max(0, -int(-timeout * 1000 // 1))
    if _check(lib.lcp_next_event(channel, milliseconds, event, pidfd)) == 0:
        return None
    given = int(pidfd[0])
    return Event(event.kind, event.value, event.error, event.stage, given if given >= 0 else None)


def first_news(channel: int) -> tuple[Event, int]:
    """
    Wait until a supervisor tells that its program runs, or that it could not be started.

    Returns:
        What it tells, and the supervisor's pid, 0 where there is none.

    Raises:
        BrokenPipeError: The supervisor was killed before.
    """
    supervisor = 0
    news: Event | None = None
    # The pid may come after the news: another process tells it.
    while news is None or supervisor == 0:
        try:
            event = next_event(channel, None)
        except InterruptedError:
            continue  # the signal's handler has run
        except BrokenPipeError:
            if news is None:
                if supervisor:
                    reap(supervisor, wait=True)
                raise
            break  # there never was a supervisor
        if event is not None and event.kind == SUPERVISED:
            supervisor = event.value
        elif event is not None:
            news = event
    return news, supervisor


def reap(child: int, *, wait: bool) -> bool:
    """
    Reap a child of this process.

    Args:
        child: Its pid.
        wait: Whether to wait for its end.

    Returns:
        Whether it is gone.
    """
    try:
        pid, _ = os.waitpid(child, 0 if wait else os.WNOHANG)
    except ChildProcessError:
        return True  # SIGCHLD is ignored here, or somebody waited for every child
    return pid != 0


def mirror(channel: int, pidfd: int, *, terminal: bool) -> int:
    """
    Behave as the program of `pidfd` until it ends, and return its wait status.

    Args:
        channel: Its news.
        pidfd: Which.
        terminal: Whether it is in another session, so that the terminal's signals are to be passed on.

    Raises:
        BrokenPipeError: The supervisor is gone.
    """
    status = ffi.new("int *")
    _check(lib.lcp_mirror(channel, pidfd, terminal, ffi.NULL, status))
    return int(status[0])


def keep_fds(fds: Sequence[int]) -> str:
    """Hold descriptors open in a process outside this one's tree; the name gets them back."""
    name = ffi.new("char[]", 108)
    keeper = ffi.new("int *")
    _check(lib.lcp_keep_fds(list(fds), len(fds), name, 108, keeper))
    return _ascii(name)


def take_fds(name: str, count: int) -> list[int]:
    """Get back the descriptors held under a name; the holder ends."""
    fds = ffi.new("int[]", max(1, count))
    got = _check(lib.lcp_take_fds(name.encode("ascii"), fds, count))
    return list(fds)[:got]


def same_file(pid: int, fd: int, own: int) -> bool:
    """Return whether a descriptor of another process is the same open file as one of ours; False where it is closed."""
    return bool(lib.lcp_same_file(pid, fd, own) == 1)


def connect(name: str) -> int:
    """Connect to an abstract socket of this user by name."""
    return _check(lib.lcp_connect(name.encode("ascii")))


def random_name() -> str:
    """Make a name for an abstract socket that nobody can guess."""
    name = ffi.new("char[]", 108)
    _check(lib.lcp_random_name(name, 108))
    return _ascii(name)


def socketpair() -> tuple[int, int]:
    """Make a pair of SOCK_SEQPACKET sockets, closed on exec."""
    pair = ffi.new("int[2]")
    _check(lib.lcp_socketpair(pair))
    return int(pair[0]), int(pair[1])


def send_fds(sock: int, fds: Sequence[int], tag: bytes = b"F") -> None:
    """Send descriptors as one message, with a byte that tells what they are."""
    _check(lib.lcp_send_tagged(sock, tag, list(fds), len(fds)))


# What a copy needs is found here and now: the first look-up of a function, or of the type behind a string, makes it.
# And there is room for what a hand-over receives, which has one thread.
_tag, _fds, _unpack = ffi.new("char[1]"), ffi.new("int[]", MAX_FDS), ffi.unpack
_three, _get_schedule = ffi.new("int[3]"), lib.lcp_get_schedule
_receive, _send = lib.lcp_receive_tagged, lib.lcp_send
_prefetch, _replace_environ = lib.lcp_prefetch, lib.lcp_replace_environ


def receive_fds(sock: int) -> tuple[bytes, list[int]]:
    """Receive the byte and the descriptors of one message."""
    count = _check(_receive(sock, _tag, _fds, MAX_FDS))
    return bytes(_tag[0]), _unpack(_fds, count)  # type: ignore[return-value]


def send(sock: int, data: bytes) -> None:
    """Send one message, without SIGPIPE where nobody reads any more."""
    _check(_send(sock, data, len(data)))


def list_pages(pid: int, limit: int, file: int) -> bool:
    """
    Write into a file which private pages a process has in use.

    Args:
        pid: The process.
        limit: Bytes that it may have written.
        file: The descriptor of the file.

    Returns:
        Whether that was possible: the process is there, may be looked at, and keeps to the limit.
    """
    return int(lib.lcp_list_pages(pid, limit, file)) == 0


def fetch_pages(file: int) -> None:
    """Fetch the pages of such a file into this process, ahead of their use."""
    lib.lcp_fetch_pages(file)


def standby_name(manifest: str) -> str:
    """
    Return the name of the socket on which copies of a snapshot wait.

    Args:
        manifest: The path of its manifest.

    Raises:
        OSError: The manifest cannot be looked at.
    """
    name = ffi.new("char[]", 80)
    _check(lib.lcp_standby_name(os.fsencode(manifest), name, 80))
    return _ascii(name)


def standby_description(mode: str) -> bytes:
    """Return what a copy would have to inherit from this process, who wants this mode, as lines of text."""
    text = ffi.new("char[]", 65536)
    size = _check(lib.lcp_standby_describe(mode.encode(), text, 65536))
    return bytes(ffi.buffer(text, size))


def probe_namespaces(namespaces: int) -> tuple[int, int]:
    """Try to make namespaces in a child: (0, 0) where that works, else the errno and the stage."""
    stage = ffi.new("int *")
    result = lib.lcp_probe_namespaces(namespaces, stage)
    return (0, 0) if result == 0 else (-result, int(stage[0]))


def trim_heap() -> None:
    """Release free memory of the C heap to the kernel."""
    lib.lcp_trim_heap()


def ignore_signal(number: int) -> None:
    """Ignore a signal, in whatever thread; `signal.getsignal` does not know of it."""
    _check(lib.lcp_ignore_signal(number))


def schedule(task: int = 0) -> tuple[int, int, int] | None:
    """Return niceness, scheduling policy and priority of a thread, 0 for this one; None where it is gone."""
    if _get_schedule(task, _three):
        return None
    return _three[0], _three[1], _three[2]


def set_schedule(task: int, values: Sequence[int]) -> None:
    """Apply these to a thread, as far as that is permitted."""
    lib.lcp_set_schedule(task, list(values))


def prefetch(path: str) -> None:
    """
    Copy pages that this process is going to write to, before it does.

    Args:
        path: Of the file that tells which; where there is none, nothing happens.
    """
    _prefetch(os.fsencode(path))


def lead_session() -> None:
    """Make a session of this process's own, also where it leads a process group."""
    _check(lib.lcp_lead_session())


def exit_now(status: int) -> NoReturn:
    """Flush the streams of C and end at once."""
    lib.lcp_exit_now(status)


def end_at_exit() -> None:
    """Have C's exit() do what `exit_now` does, with the status that it is given."""
    _check(lib.lcp_end_at_exit())


def replace_environ(env: Mapping[bytes, bytes]) -> None:
    """Make these variables the C environment of the process."""
    block = b"\0".join([*map(b"=".join, env.items()), b""])
    _check(_replace_environ(block, len(block)))
