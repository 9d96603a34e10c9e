"""
The socket of a standby pool, and which launchers may take copies.

The socket (0600) is in the user's private directory (0700), and the kernel reports who connects. It appears under its
name in one step, already listening, under a lock of the directory. So a socket on which nobody listens belongs to a
killed pool, and may be removed (csrc/common/standby.c does).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import CriuError
from libcriu_py.linux import sockets, this_process
from libcriu_py.linux.runtime_dir import private_directory
from libcriu_py.snapshot.record import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

DIFFERENCES = ("cgroup", "terminal")
"""Differences between launcher and pool that a pool may allow."""
_GIVEN = b"Y"
_REFUSED = b"N"
QUESTION = b"?"
"""What a connection sends that asks how the pool is, in place of a launcher's description."""
_DESCRIPTION_SIZE = 1 << 16
_PATIENCE = 1.0  # seconds that a launcher may take to describe itself
_STATUS_PATIENCE = 10.0
_BACKLOG = 64


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class PoolStatus(NamedTuple):
    """How many copies a pool has, and has handed out."""

    waiting: int = 0
    """Waiting copies."""
    complete: bool = False
    """Whether as many wait as the bounds allow."""
    served: int = 0
    """Copies that launchers have taken."""


class Surroundings:
    """What a copy inherits from the pool but should inherit from its launcher, so both must agree in it."""

    def __init__(self, description: bytes) -> None:
        """Read a description as `lcp_standby_describe` writes it."""
        self._lines: dict[str, list[str]] = {}
        for line in description.decode("utf-8", "surrogateescape").split("\n"):
            name, _, value = line.partition(":")
            if name:
                self._lines.setdefault(name, []).append(value.strip())

    def value(self, name: str) -> str:
        """Return the value of a line of the description, by its name; several lines are joined."""
        return "\n".join(self._lines.get(name, []))

    def difference(self, asking: Surroundings, modes: Collection[str], allowed: Collection[str]) -> str | None:
        """
        Find a difference that keeps a launcher from taking a copy of the pool.

        Args:
            asking: The launcher's surroundings; `self` is the pool's.
            modes: The privilege modes that the launcher may ask for.
            allowed: The DIFFERENCES that are allowed.

        Returns:
            The name of the first difference that matters, or None.
        """
        if asking.value("Mode") not in modes:
            return "mode"
        if not self._has_room_for(asking):
            return "limits"
        # The copy does not have the launcher's terminal, with its keys and window size.
        if asking.value("Terminal") != "0" and not ("terminal" in allowed and asking.value("Terminal") == "1"):
            return "terminal"
        judged = {"Mode", "Limits", "Terminal", *(["Cgroup"] if "cgroup" in allowed else [])}
        for name in {*self._lines, *asking._lines} - judged:
            if self._lines.get(name) != asking._lines.get(name):
                return name.lower()
        return None

    def _has_room_for(self, asking: Surroundings) -> bool:
        """Return whether a copy can adopt the launcher's hard limits, which it can only lower."""
        try:
            ours, theirs = ([int(word) for word in one.value("Limits").split()] for one in (self, asking))
        except ValueError:
            return False
        return len(ours) == len(theirs) and all(low <= high for low, high in zip(theirs, ours, strict=True))


class Client:
    """
    A launcher that has connected.

    Thread safety: none.
    """

    def __init__(self, connection: socket.socket) -> None:
        """Take over a connection."""
        self._connection = connection
        self.deadline = time.monotonic() + _PATIENCE
        """When its silence ends the connection, by the monotonic clock."""

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._connection.fileno()

    def read(self) -> bytes:
        """Read its description of itself; empty if it has gone."""
        return self._connection.recv(_DESCRIPTION_SIZE)

    def hand_over(self, fds: Sequence[int]) -> bool:
        """Hand it a copy; return False if it has gone."""
        try:
            socket.send_fds(self._connection, [_GIVEN], list(fds), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def tell(self, status: PoolStatus) -> None:
        """Answer how the pool is."""
        with contextlib.suppress(OSError):  # it has gone
            self._connection.send(json.dumps(status._asdict()).encode(), socket.MSG_NOSIGNAL)

    def refuse(self) -> None:
        """Answer that it gets no copy."""
        with contextlib.suppress(OSError):  # it has gone
            self._connection.send(_REFUSED, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Listener:
    """
    The listening socket of a pool.

    Thread safety: none.
    """

    def __init__(self, path: str) -> None:
        """
        Listen.

        Args:
            path: The socket's path, in the private directory.

        Raises:
            CriuError: A pool listens there already.
            OSError: The path is too long for a socket.
        """
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            with _locked(private_directory()):
                self._listen()
        except BaseException:
            self._socket.close()
            raise
        self._identity = _identity(path)

    def _listen(self) -> None:
        _remove_dead(private_directory())
        if os.path.exists(self.path):
            message = f"this snapshot already has a standby pool, at {self.path}; end that one first"
            raise CriuError(message)
        temporary = f"{self.path}.new"
        self._socket.bind(temporary)
        os.chmod(temporary, 0o600)
        self._socket.listen(_BACKLOG)
        os.rename(temporary, self.path)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when a launcher connects."""
        return self._socket.fileno()

    @property
    def is_there(self) -> bool:
        """Whether the socket is still at its path."""
        return _identity(self.path) == self._identity

    def accept(self) -> Client | None:
        """Accept a connection; return None if it is gone, or from another user."""
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return None
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        connection.setblocking(False)
        if uid != os.geteuid():
            connection.close()
            return None
        return Client(connection)

    def close(self) -> None:
        """Remove the socket."""
        with _locked(private_directory()):
            if self.is_there:
                os.unlink(self.path)
        self._socket.close()


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove_dead(directory: str) -> None:
    """Remove the sockets of killed pools; the caller holds the lock."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith("standby-") and not _is_listened_on(path):
            os.unlink(path)


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
    return True


def own_surroundings(mode: str) -> Surroundings:
    """Return the surroundings of this process, in a privilege mode."""
    return Surroundings(this_process.standby_description(mode))


def socket_of(directory: str) -> str:
    """
    Return the path of the socket of a pool that serves a snapshot in its present state.

    Raises:
        OSError: The snapshot is gone.
    """
    return os.path.join(private_directory(), sockets.standby_name(os.path.join(directory, MANIFEST)))


def status_of(directory: str) -> PoolStatus | None:
    """
    Ask the pool of a snapshot how it is.

    Args:
        directory: The snapshot.

    Returns:
        Its answer; None if there is no pool.

    Raises:
        OSError: The snapshot is gone, or the pool has not answered.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(_STATUS_PATIENCE)
        try:
            asking.connect(socket_of(directory))
        except (ConnectionRefusedError, FileNotFoundError):
            os.stat(directory)
            return None
        asking.send(QUESTION)
        answer = asking.recv(_DESCRIPTION_SIZE)
    return PoolStatus(**json.loads(answer)) if answer else None
