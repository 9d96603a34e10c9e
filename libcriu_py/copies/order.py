"""
Orders to `libcriu-py-run`, the program that restores, and what it tells of them (csrc/restore/order.h).

An order is one flat record in a memfd; what becomes of it arrives on the status socket, whose other end only the
launcher holds.
"""

from __future__ import annotations

import _socket  # of C, without the cost of `socket`
import fcntl
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.copies import launcher as native_launcher
from libcriu_py.errors import CriuError, RestoreError, SnapshotError, UnsupportedFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from libcriu_py.privilege.mode import Privilege

ISOLATE = 1
DIE_WITH_CALLER = 2
MAY_TAKE = 4
STANDBY = 8
HOLD = 16

_RESTORED = 1
TOLD = 2
_FAILED = 3
ENDED = 4

_FAILURE_SNAPSHOT = 1
_FAILURE_MODE = 2
_FAILURE_NAMESPACES = 3
_FAILURE_REFUSED = 4

_MAGIC, _VERSION = b"lcporder", 1
_HEADER = struct.Struct("=8s7I")
_STATUS = struct.Struct("=5i")
_LARGEST_STATUS = _STATUS.size + 65536
_MODES = ("auto", "root", "capability", "rootless")
_MOST_FDS = 3


class Status(NamedTuple):
    """What the launcher tells; the numbers mean different things in each kind of message."""

    kind: int
    value: int
    error: int
    stage: int
    failure: int
    text: bytes
    fds: Sequence[int]


class Order:
    """
    A restore that is asked for, until a launcher has it.

        with Order(...) as order:
            subprocess.Popen(order.command, pass_fds=order.descriptors)
        restored = order.await_restored()

    Thread safety: none.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        request: bytes,
        *,
        mode: Privilege,
        flags: int = 0,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """
        Write an order.

        Args:
            directory: The snapshot's directory.
            request: What the copy is handed, as `Request.encode` writes it.
            mode: How the restore is allowed.
            flags: Of the constants above.
            pass_fds: The descriptors that belong to the request.

        Raises:
            CriuError: The launcher was not built.
            OSError: There is no room for it.
        """
        self._directory = directory
        self._mode = mode
        self._pass_fds = pass_fds
        self._launcher = native_launcher.path()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.status, self._theirs = _above_stdio(ours.detach()), _above_stdio(theirs.detach())
        """The caller's end of the status socket."""
        self._file = _above_stdio(os.memfd_create("libcriu_py-order", os.MFD_CLOEXEC))
        path = os.fsencode(directory) + b"\0"
        sizes = (len(pass_fds), len(path), len(request))
        header = _HEADER.pack(_MAGIC, _VERSION, flags, _MODES.index(mode.value), self._theirs, *sizes)
        try:
            with open(self._file, "wb", closefd=False) as file:
                file.write(b"".join((header, struct.pack(f"={len(pass_fds)}i", *pass_fds), path, request)))
        except BaseException:
            os.close(self.status)
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close what the launcher has now."""
        os.close(self._theirs)
        os.close(self._file)

    @property
    def command(self) -> list[str]:
        """The command line of the launcher."""
        return [self._launcher, "--order", str(self._file)]

    @property
    def descriptors(self) -> list[int]:
        """What it has to be started with."""
        return [self._file, self._theirs, *self._pass_fds]

    def await_restored(self) -> Status:
        """
        Wait until there is a copy.

        Returns:
            Its pid as `value`, whether it is of a pool as `error`, the conventional command as text, and its pidfd; of
            one that is to wait in a pool also the supervisor's channel and the socket of the hand-over.

        Raises:
            CriuError: There is none, with the reason.
        """
        status = receive(self.status)
        if status is None:
            message = f"{native_launcher.NAME} ended before it could restore anything"
            raise RestoreError(message)
        if status.kind == _RESTORED:
            return status
        try:
            raise self._reason(status)
        finally:
            for fd in status.fds:
                os.close(fd)

    def _reason(self, status: Status) -> CriuError:
        """Say why there is no copy: the launcher says what, and here are the words for people."""
        text = status.text.decode("utf-8", "backslashreplace")
        if status.failure == _FAILURE_SNAPSHOT:
            return self._unusable() or SnapshotError(text)
        if status.failure == _FAILURE_MODE:
            return self._not_allowed() or UnsupportedFeature(text)
        if status.failure == _FAILURE_REFUSED:
            from libcriu_py.criu.log import refusal

            log = f"/proc/self/fd/{status.fds[0]}" if status.fds else None
            refused = refusal("restore", status.value, status.error, log)
            refused.forget_log()  # it was removed with its directory
            return refused
        if status.failure == _FAILURE_NAMESPACES:
            from libcriu_py.linux import supervision
            from libcriu_py.privilege import decision

            if status.stage in supervision.STAGES_OF_NAMESPACES:
                return decision.namespaces_failed(status.error, status.stage)
        return RestoreError(text)

    def _unusable(self) -> CriuError | None:
        from libcriu_py.snapshot.identity import refuse_mismatches
        from libcriu_py.snapshot.manifest import Snapshot

        try:
            refuse_mismatches(Snapshot.open(self._directory))
        except CriuError as error:
            return error
        return None

    def _not_allowed(self) -> CriuError | None:
        from libcriu_py.criu.find import find_criu
        from libcriu_py.privilege import decision
        from libcriu_py.snapshot.manifest import Snapshot

        try:
            decision.decide(self._mode, criu=find_criu(), launch=Snapshot.open(self._directory).launch)
        except CriuError as error:
            return error
        return None


def receive(sock: int, flags: int = 0) -> Status | None:
    """
    Receive what the launcher tells next.

    Args:
        sock: The status socket.
        flags: As for recv(2).

    Returns:
        The message; None when the launcher is gone.

    Raises:
        BlockingIOError: With MSG_DONTWAIT, there is nothing yet.
    """
    connection = _socket.socket(fileno=sock)
    try:
        room = _socket.CMSG_SPACE(_MOST_FDS * 4)
        data, control, *_ = connection.recvmsg(_LARGEST_STATUS, room, flags | _socket.MSG_CMSG_CLOEXEC)
    finally:
        connection.detach()
    if not data:
        return None
    fds = [fd for _, _, numbers in control for (fd,) in struct.iter_unpack("=i", numbers)]
    kind, value, error, stage, failure = _STATUS.unpack_from(data)
    return Status(kind, value, error, stage, failure, data[_STATUS.size :], fds)


def _above_stdio(fd: int) -> int:
    """Move a descriptor out of the way of the standard streams, which may be closed here."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
