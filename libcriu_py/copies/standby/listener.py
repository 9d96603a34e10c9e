"""
The socket of a standby pool, and whom it is open to.

It is in the user's private directory (0700), itself 0600, and the kernel is asked who connects. Its name appears
only when somebody listens, in one step and under a lock of the directory: whoever finds a name that nobody listens
under may remove it (csrc/common/standby.c does), for its pool was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

from libcriu_py.errors import CriuError
from libcriu_py.linux import sockets, this_process
from libcriu_py.linux.runtime_dir import private_directory
from libcriu_py.snapshot.manifest import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

DIFFERENCES = ("cgroup", "terminal")
"""In what a launcher may be let differ from the pool."""
_GIVEN = b"Y"
_REFUSED = b"N"
_DESCRIPTION_SIZE = 1 << 16
_PATIENCE = 1.0  # seconds that a launcher may take to say what it is
_BACKLOG = 64


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class Surroundings:
    """What a copy inherits from the pool, and would have to inherit from a launcher."""

    def __init__(self, description: bytes) -> None:
        """Read a description as `lcp_standby_describe` writes it."""
        self._lines: dict[str, list[str]] = {}
        for line in description.decode("utf-8", "surrogateescape").split("\n"):
            name, _, value = line.partition(":")
            if name:
                self._lines.setdefault(name, []).append(value.strip())

    def value(self, name: str) -> str:
        """Return what is said under a name."""
        return "\n".join(self._lines.get(name, []))

    def difference(self, asking: Surroundings, modes: Collection[str], allowed: Collection[str]) -> str | None:
        """
        Find what keeps a launcher from taking a copy of the pool.

        Args:
            asking: That of the launcher; `self` is the pool's.
            modes: The modes it may ask for.
            allowed: In which of DIFFERENCES it may differ.

        Returns:
            The first difference that matters, or None.
        """
        if asking.value("Mode") not in modes:
            return "mode"
        if not self._has_room_for(asking):
            return "limits"
        # Its keys and its window size are those of a terminal that the copy does not have.
        if asking.value("Terminal") != "0" and not ("terminal" in allowed and asking.value("Terminal") == "1"):
            return "terminal"
        judged = {"Mode", "Limits", "Terminal", *(["Cgroup"] if "cgroup" in allowed else [])}
        for name in {*self._lines, *asking._lines} - judged:
            if self._lines.get(name) != asking._lines.get(name):
                return name.lower()
        return None

    def _has_room_for(self, asking: Surroundings) -> bool:
        """Return whether a copy can take over the launcher's hard limits, which it can only lower."""
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
        """When it has been silent for too long, by the monotonic clock."""

    def fileno(self) -> int:
        """Return the descriptor of the connection."""
        return self._connection.fileno()

    def read(self) -> bytes:
        """Read what it says of itself; nothing when it has gone without a word."""
        return self._connection.recv(_DESCRIPTION_SIZE)

    def hand_over(self, fds: Sequence[int]) -> bool:
        """Hand it a copy; False when it has gone meanwhile."""
        try:
            socket.send_fds(self._connection, [_GIVEN], list(fds), socket.MSG_NOSIGNAL)
        except OSError:
            return False
        return True

    def refuse(self) -> None:
        """Tell it that there is nothing for it."""
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
            path: In the private directory.

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
            message = f"there is a standby pool of this snapshot already, at {self.path}; end that one first"
            raise CriuError(message)
        temporary = f"{self.path}.new"
        self._socket.bind(temporary)
        os.chmod(temporary, 0o600)
        self._socket.listen(_BACKLOG)
        os.rename(temporary, self.path)

    def fileno(self) -> int:
        """Return the descriptor that is readable when somebody connects."""
        return self._socket.fileno()

    @property
    def is_there(self) -> bool:
        """Whether the socket can still be found under its path."""
        return _identity(self.path) == self._identity

    def accept(self) -> Client | None:
        """Return who has connected, if it is this very user."""
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
    """Remove the sockets of pools that were killed; the lock is held."""
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if name.startswith("standby-") and not _is_listened_on(path):
            os.unlink(path)


def _is_listened_on(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # too many wait there
        except OSError:
            return False
    return True


def own_surroundings(mode: str) -> Surroundings:
    """Describe this process."""
    return Surroundings(this_process.standby_description(mode))


def socket_of(directory: str) -> str:
    """
    Return the path of the socket on which copies of a snapshot, as it is now, would wait.

    Raises:
        OSError: The snapshot is gone.
    """
    return os.path.join(private_directory(), sockets.standby_name(os.path.join(directory, MANIFEST)))
