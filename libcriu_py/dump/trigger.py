"""
Checkpoints on request: a program calls `allow_checkpoint`, and `libcriu-py trigger PID` has it take one.

The program listens on an abstract UNIX socket, which the requester finds among its descriptors. The listening thread
takes the checkpoint, wherever the other threads are. It closes the socket for that, and opens another one in each copy
and in an original that continues. No connection survives a dump, so the result goes to a socket of the requester's own.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, NoReturn

from libcriu_py.errors import CheckpointError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from libcriu_py.settings import HereSettings

PREFIX = "libcriu_py-trigger-"
ANSWER = "libcriu_py-answer-"
_LIMIT = 1 << 16
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7))
WAIT = 300.0
"""Seconds that `ask` waits for the result."""


class Permission:
    """
    Permission to checkpoint this process from outside, as `allow_checkpoint` grants it.

    Leaving it as a context manager revokes it. Thread safety: any thread may revoke it.
    """

    def __init__(self, dir: str | None, settings: HereSettings, *, once: bool = False) -> None:  # noqa: A002
        """Begin to listen, for one request or until it is revoked."""
        self._once = once
        self._dir = dir
        self._settings = settings
        self._allowed = True
        self._listener = listen(PREFIX)
        self._thread = threading.Thread(target=self._serve, name="libcriu-py-trigger", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Revoke it."""
        self.revoke()

    def revoke(self) -> None:
        """Stop listening, and wait for a checkpoint that is being taken; a second call does nothing."""
        self._allowed = False
        with contextlib.suppress(OSError):  # it is closed, for a checkpoint or by an earlier call
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the thread's wait
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        while self._allowed:
            try:
                request = _receive(self._listener)
            except OSError:
                continue  # revoked, or the requester went away
            if request is None:
                continue
            self._listener.close()
            if self._once:
                self._allowed = False
            try:
                result = self._checkpoint(request)
            finally:
                if not self._once:
                    self._listener = listen(PREFIX)
            if result is not None:
                _send(request["answer"], result)
        self._listener.close()

    def _checkpoint(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Take the checkpoint; return its result for the requester, or None in a copy."""
        from libcriu_py.dump.checkpoint import checkpoint_here
        from libcriu_py.settings import variable

        directory = self._dir if request["dir"] is None else request["dir"]
        path = variable("LIBCRIU_PY_SNAPSHOT") or directory
        _send(request["answer"], {"begun": None if path is None else os.path.abspath(path)})
        try:
            taken = checkpoint_here(directory, **self._settings)
        except Exception as error:  # noqa: BLE001 - the program goes on after any error, which the requester gets
            return {"error": f"{type(error).__name__}: {error}"}
        return None if taken.restored else {}


def allow_checkpoint(
    dir: str | os.PathLike[str] | None = None,  # noqa: A002
    **settings: Unpack[HereSettings],
) -> Permission:
    """
    Let the same user checkpoint this process from outside, with `libcriu-py trigger PID`.

        allow_checkpoint("snap")
        serve_for_ever()            # continues in each copy, wherever it was

    Hooks run as in every checkpoint, but in a thread of their own. `no_checkpoint()` delays a requested checkpoint.

    Args:
        dir: The snapshot's directory, unless the requester names another.
        settings: As for `checkpoint`.

    Returns:
        The permission; call its `revoke()` to end it.

    Raises:
        OSError: No socket could be opened.
    """
    return Permission(None if dir is None else os.path.abspath(os.fspath(dir)), settings)


def ask(pid: int, dir: str | None = None, wait: float = WAIT) -> str:  # noqa: A002
    """
    Ask another process to take a checkpoint of itself.

    Args:
        pid: The process, which must have called `allow_checkpoint`.
        dir: The snapshot's directory; None for the one that the process has named.
        wait: Seconds to wait for its answer.

    Returns:
        The snapshot's path.

    Raises:
        CheckpointError: The process does not allow checkpoints, or its checkpoint failed; the process goes on.
        ProcessLookupError: There is no such process.
    """
    pidfd = os.pidfd_open(pid)
    answers = listen(ANSWER)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(_find(pid) or _refuse(pid))
            asking.sendall(json.dumps({"dir": dir, "answer": answers.getsockname().decode("latin-1")}).encode())
        begun = wait_for(answers, pidfd, pid, wait) or {"error": "it has ended"}
        path = str(begun.get("begun"))
        before = _identity(path)
        result = begun if "error" in begun else wait_for(answers, pidfd, pid, wait)
    finally:
        answers.close()
        os.close(pidfd)
    if result is None and _identity(path) == before:
        result = {"error": "it has ended; see its messages"}
    if result and "error" in result:
        message = f"process {pid} took no checkpoint: {result['error']}"
        raise CheckpointError(message)
    return path


def _identity(path: str) -> tuple[int, int] | None:
    """Return a key that changes when another snapshot replaces the one in a directory."""
    try:
        status = os.stat(os.path.join(path, "manifest.json"))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def wait_for(answers: socket.socket, pidfd: int, pid: int, wait: float) -> dict[str, Any] | None:
    """Wait for the result; return None if the process ends first."""
    import select
    import time

    deadline = time.monotonic() + wait
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([answers.fileno(), pidfd], [], [], left)
        if answers.fileno() in ready:
            result = _receive(answers)
            if result is not None:
                return result
        elif ready:
            return None
    message = f"process {pid} has not answered for {wait:g} s"
    raise CheckpointError(message)


def is_allowed(pid: int) -> bool:
    """
    Return whether a process listens for requests.

    Raises:
        CheckpointError: It belongs to another user.
        ProcessLookupError: There is no such process.
    """
    return _find(pid) is not None


def _refuse(pid: int) -> NoReturn:
    message = f"process {pid} does not allow checkpoints: it must call libcriu_py.allow_checkpoint() first"
    raise CheckpointError(message)


def _find(pid: int) -> bytes | None:
    """Return the address on which a process listens for requests, by its sockets in /proc/net/unix."""
    inodes = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    except FileNotFoundError:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
    except PermissionError:
        why = "belongs to another user; run this as that user"
        if os.stat(f"/proc/{pid}").st_uid == os.geteuid():
            why = "has rights that this command has not; run this with CAP_SYS_PTRACE (in Docker --cap-add SYS_PTRACE)"
        message = f"process {pid} {why}"
        raise CheckpointError(message) from None
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
        for line in sockets:
            fields = line.split()
            if len(fields) == 8 and fields[6] in inodes and fields[7].startswith(f"@{PREFIX}"):
                return b"\0" + fields[7][1:].encode()
    return None


def listen(prefix: str) -> socket.socket:
    """Return a socket that listens on a name of its own."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"\0{prefix}{secrets.token_hex(16)}")
    listener.listen(1)
    return listener


def _receive(listener: socket.socket) -> dict[str, Any] | None:
    """Receive one message from a process of this user; return None for one from another user."""
    connection, _ = listener.accept()
    with connection:
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != os.geteuid():
            return None
        data = b""
        while (part := connection.recv(_LIMIT)) and len(data) < _LIMIT:
            data += part
    message: dict[str, Any] | None = json.loads(data) if data else None  # it has ended before its answer
    return message


def _send(address: str, result: dict[str, Any]) -> None:
    with (
        contextlib.suppress(OSError),  # the requester no longer waits
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.connect(address.encode("latin-1"))
        connection.sendall(json.dumps(result).encode())
