"""
Checkpoints that are asked for from outside: a program says that it may be taken, and `libcriu-py trigger PID` takes it.

The program listens on an abstract UNIX socket, which the other side finds among its descriptors. The thread that
listens takes the checkpoint, wherever the others are; the socket is closed for it, and made anew in the original that
goes on and in each copy. The result is told on a socket of the asking side's, since no connection survives a dump.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

from libcriu_py.errors import CheckpointError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from libcriu_py.settings import HereSettings

PREFIX = "libcriu_py-trigger-"
_ANSWER = "libcriu_py-answer-"
_LIMIT = 1 << 16
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid (unix(7))
WAIT = 300.0
"""Seconds that `ask` waits for the result."""


class Permission:
    """
    That this process may be checkpointed from outside; `allow_checkpoint` gives it.

    Usable as a context manager. Thread safety: any thread may revoke it.
    """

    def __init__(self, dir: str | None, settings: HereSettings) -> None:  # noqa: A002
        """Begin to listen."""
        self._dir = dir
        self._settings = settings
        self._allowed = True
        self._listener = _listen(PREFIX)
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
        """Listen no more; a checkpoint that is being taken is waited for. A second time does nothing."""
        self._allowed = False
        with contextlib.suppress(OSError):  # it is closed for a checkpoint, or for good
            self._listener.shutdown(socket.SHUT_RDWR)  # ends the thread's wait
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _serve(self) -> None:
        while self._allowed:
            try:
                request = _receive(self._listener)
            except OSError:
                continue  # revoked, or the other side went away
            if request is None:
                continue
            self._listener.close()
            try:
                result = self._checkpoint(request)
            finally:
                self._listener = _listen(PREFIX)
            if result is not None:
                _send(request["answer"], result)
        self._listener.close()

    def _checkpoint(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Take the checkpoint; the result, for the one who asked, is known in the original only."""
        from libcriu_py.dump.checkpoint import checkpoint_here
        from libcriu_py.settings import variable

        directory = self._dir if request["dir"] is None else request["dir"]
        path = variable("LIBCRIU_PY_SNAPSHOT") or directory
        _send(request["answer"], {"begun": None if path is None else os.path.abspath(path)})
        try:
            taken = checkpoint_here(directory, **self._settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the program goes on and the other side is told
            return {"error": f"{type(error).__name__}: {error}"}
        return None if taken.restored else {}


def allow_checkpoint(
    dir: str | os.PathLike[str] | None = None,  # noqa: A002
    **settings: Unpack[HereSettings],
) -> Permission:
    """
    Allow checkpoints of this process, from now on, to whoever asks by `libcriu-py trigger PID` as the same user.

        allow_checkpoint("snap")
        serve_for_ever()            # goes on in each copy, wherever it was

    Hooks run as in every checkpoint, in a thread of their own. `no_checkpoint()` keeps one from being taken meanwhile.

    Args:
        dir: The snapshot's directory, unless the one who asks names another.
        settings: As for `checkpoint`.

    Returns:
        The permission, to be revoked.

    Raises:
        OSError: No socket could be made.
    """
    return Permission(None if dir is None else os.path.abspath(os.fspath(dir)), settings)


def ask(pid: int, dir: str | None = None, wait: float = WAIT) -> str:  # noqa: A002
    """
    Have another process take a checkpoint of itself.

    Args:
        pid: That process, which has called `allow_checkpoint`.
        dir: The snapshot's directory; None for the one that it has named.
        wait: Seconds.

    Returns:
        The snapshot's path.

    Raises:
        CheckpointError: It does not allow it, or it failed; the process goes on.
        ProcessLookupError: There is no such process.
    """
    pidfd = os.pidfd_open(pid)
    answers = _listen(_ANSWER)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(_find(pid))
            asking.sendall(json.dumps({"dir": dir, "answer": answers.getsockname().decode("latin-1")}).encode())
        begun = _await(answers, pidfd, pid, wait) or {"error": "it has ended"}
        path = str(begun.get("begun"))
        before = _identity(path)
        result = begun if "error" in begun else _await(answers, pidfd, pid, wait)
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
    """Return what tells one snapshot in a directory from the next."""
    try:
        status = os.stat(os.path.join(path, "manifest.json"))
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _await(answers: socket.socket, pidfd: int, pid: int, wait: float) -> dict[str, Any] | None:
    """Wait for the result, or for the end of the process (None)."""
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


def _find(pid: int) -> bytes:
    """Return the address on which a process listens for us: that of one of its sockets (proc_net_unix)."""
    inodes = set()
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            link = os.readlink(f"/proc/{pid}/fd/{fd}")
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    except PermissionError:
        message = f"process {pid} belongs to another user; ask as that user"
        raise CheckpointError(message) from None
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as sockets:
        for line in sockets:
            fields = line.split()
            if len(fields) == 8 and fields[6] in inodes and fields[7].startswith(f"@{PREFIX}"):
                return b"\0" + fields[7][1:].encode()
    message = f"process {pid} does not allow it: it has to call libcriu_py.allow_checkpoint() first"
    raise CheckpointError(message)


def _listen(prefix: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"\0{prefix}{secrets.token_hex(16)}")
    listener.listen(1)
    return listener


def _receive(listener: socket.socket) -> dict[str, Any] | None:
    """Receive one message of a process of this user; None if it was of another."""
    connection, _ = listener.accept()
    with connection:
        _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid != os.geteuid():
            return None
        data = b""
        while (part := connection.recv(_LIMIT)) and len(data) < _LIMIT:
            data += part
    message: dict[str, Any] = json.loads(data)
    return message


def _send(address: str, result: dict[str, Any]) -> None:
    with (
        contextlib.suppress(OSError),  # whoever asked waits no more
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
    ):
        connection.connect(address.encode("latin-1"))
        connection.sendall(json.dumps(result).encode())
