"""Finishing an operation: its result or exception, and cleaning up after a failed one."""

from __future__ import annotations

import errno
import os

from libcriu_py.errors import BinaryNotFound, OperationRefused, TransportError, VersionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcriu_py.criu.call import Request


def finish(
    who: object,
    operation: str,
    request: Request,
    result: int,
    error: int,
    status: int | None = None,
    limit: float | None = None,
) -> int:
    """
    Return the result of libcriu, or raise the exception for it (the table of results is in criu.h).

    Args:
        who: The criu, for messages.
        operation: The operation, for messages.
        request: The request.
        result: What libcriu returned.
        error: The errno of libcriu.
        status: The wait status of criu; None if unknown.
        limit: The seconds after which it was ended; None if it was not.

    Raises:
        MemoryError: There is not enough memory.
        OperationRefused: criu refused.
        TransportError: criu did not answer.
        VersionError: criu does not know the request.
    """
    if result >= 0:
        return result
    if result in {-errno.EINVAL, -errno.EBADMSG}:
        message = f"{who!r} does not understand the request to {operation}; it is too old for this libcriu"
        raise VersionError(message)
    if result == -errno.ENOMEM:
        raise MemoryError
    from libcriu_py.criu.log import refusal

    told = refusal(operation, result, error, request.written_log(), request.output())
    raise told if result == -errno.EBADE else _broken(who, status, limit, told)


def _broken(who: object, status: int | None, limit: float | None, told: OperationRefused) -> TransportError:
    if limit is not None:
        how = f"it was ended after {limit:g} s (LIBCRIU_PY_CRIU_LIMIT)"
    elif status is not None and os.WIFSIGNALED(status):
        how = f"it was killed by signal {os.WTERMSIG(status)}"
    elif status:
        how = f"it ended with status {os.waitstatus_to_exitcode(status)}"
    else:
        # For an end without an answer libcriu has what the socket says, EINVAL, EIO or nothing.
        plain = told.errno in {0, errno.EINVAL, errno.EIO, errno.ECONNRESET, errno.EPIPE}
        how = "it ended before it had answered" if plain else os.strerror(told.errno)
    message = f"{who!r} did not answer the request to {told.operation}: {how}"
    if told.reason:
        message = f"{message}; it wrote: {told.reason}"
    return TransportError(f"{message}; {told.hint}" if told.hint else message)


def check(binary: str, *, unprivileged: bool) -> None:
    """
    Run `criu check`.

    libcriu's own request has no options: CRIU 4.1 crashes on it (criu/cr-service.c, check), and only root succeeds.

    Args:
        binary: The criu program.
        unprivileged: Whether to check for CAP_CHECKPOINT_RESTORE alone.

    Raises:
        BinaryNotFound: The program is gone.
        OperationRefused: The kernel lacks what criu needs.
        TransportError: The program cannot be started.
    """
    import subprocess

    try:
        ended = subprocess.run(
            [binary, "check", *(["--unprivileged"] if unprivileged else [])],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        message = f"cannot start {binary}: {error.strerror}"
        raise BinaryNotFound(message) from error
    except OSError as error:
        message = f"cannot start {binary}: {error.strerror}"
        raise TransportError(message) from error
    if ended.returncode != 0:
        from libcriu_py.criu.log import refusal

        raise refusal("check", ended.returncode, 0, None, ended.stdout)


def connect_service(path: str) -> int:
    """
    Return a connection to a criu that runs as a service.

    Args:
        path: The address of its socket.

    Raises:
        TransportError: Nobody answers.
    """
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            message = f"no criu service answers at {path}: {error.strerror or error}"
            raise TransportError(message) from error
        return connection.detach()


def children() -> set[int]:
    """
    Return the children of this thread; empty if the kernel does not list them (CONFIG_PROC_CHILDREN).

    The kernel lists children by thread, so those of other threads are not among them.
    """
    try:
        with open("/proc/thread-self/children", "rb") as file:
            return {int(pid) for pid in file.read().split()}
    except OSError:
        return set()


def kill_and_reap(pids: set[int]) -> None:
    """
    Kill and reap what a failed restore has left: a half-restored process, or its zombie.

    Args:
        pids: Children of this process.
    """
    import signal

    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue
