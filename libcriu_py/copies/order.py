"""
Orders to restore, and the status messages that answer them (csrc/restore/order.h).

An order to the launcher is one flat record in a memfd. The launcher reports the result on the status socket, whose
other end it alone holds.
"""

from __future__ import annotations

import _socket  # of C, without the cost of `socket`
import fcntl
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import CriuError, RestoreError, SnapshotMismatch, UnsupportedFeature
from libcriu_py.snapshot import launcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

    from libcriu_py.privilege.mode import Privilege

ISOLATE = 1
DIE_WITH_CALLER = 2
MAY_TAKE = 4
STANDBY = 8
HOLD = 16
_VERIFY = (None, "arrival", "once", "always")
_VERIFY_SHIFT = 5
_ENGINES = {"auto": 0, "native": 2, "criu": 3}
_ENGINE_SHIFT = 7

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
    """A message of the launcher; the meaning of the numbers depends on its kind (csrc/restore/order.h)."""

    kind: int
    value: int
    error: int
    stage: int
    failure: int
    text: bytes
    fds: Sequence[int]


class Order:
    """
    An order for a launcher that is about to be started.

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
            request: The copy's request, as `Request.encode` writes it.
            mode: Privilege mode.
            flags: ISOLATE, DIE_WITH_CALLER, MAY_TAKE, STANDBY and HOLD, combined by |.
            pass_fds: The descriptors that belong to the request.

        Raises:
            CriuError: The launcher was not built.
            OSError: The order cannot be written.
        """
        self._directory = directory
        self._mode = mode
        self._pass_fds = pass_fds
        self._launcher = launcher.path()
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
        """Close the descriptors that the launcher has inherited."""
        os.close(self._theirs)
        os.close(self._file)

    @property
    def command(self) -> list[str]:
        """The command line of the launcher."""
        return [self._launcher, "--order", str(self._file)]

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that the launcher must inherit."""
        return [self._file, self._theirs, *self._pass_fds]

    def await_restored(self) -> Status:
        """
        Wait until the copy is restored.

        Returns:
            A status with the copy's pid as `value`, whether it is from a pool as `error`, the conventional command as
            `text`, and the pidfd. With STANDBY, the supervisor's channel and the hand-over socket follow.

        Raises:
            CriuError: The restore failed, with the reason.
        """
        status = receive(self.status)
        if status is None:
            message = f"{launcher.NAME} ended before it had restored the copy"
            raise RestoreError(message)
        if status.kind == _RESTORED:
            return status
        try:
            raise self._reason(status)
        finally:
            for fd in status.fds:
                os.close(fd)

    def _reason(self, status: Status) -> CriuError:
        """Make an exception with a message for people out of the launcher's failure code."""
        text = status.text.decode("utf-8", "backslashreplace")
        if status.failure == _FAILURE_SNAPSHOT:
            return self._unusable(text)
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

    def _unusable(self, text: str) -> CriuError:
        from libcriu_py.snapshot.manifest import Snapshot

        try:
            Snapshot.open(self._directory)
        except CriuError as error:
            return error
        return SnapshotMismatch(text)

    def _not_allowed(self) -> CriuError | None:
        from libcriu_py.criu.find import find_criu
        from libcriu_py.privilege import decision
        from libcriu_py.snapshot.manifest import Snapshot

        try:
            decision.decide(self._mode, criu=find_criu(), launch=Snapshot.open(self._directory).launch)
        except CriuError as error:
            return error
        return None


def verify_flag(level: str | None) -> int:
    """
    Return the flags that ask for a level of verification.

    Args:
        level: One of the levels; None leaves it to the variable.

    Raises:
        ValueError: There is no such level.
    """
    if level not in _VERIFY:
        message = f'verify must be "arrival", "once" or "always", not {level!r}'
        raise ValueError(message)
    return _VERIFY.index(level) << _VERIFY_SHIFT


def engine_flag(engine: str) -> int:
    """
    Return the flags that ask for an engine.

    Args:
        engine: One of them; "auto" leaves it to the variable.

    Raises:
        ValueError: There is no such engine.
    """
    if engine not in _ENGINES:
        message = f'engine must be "auto", "native" or "criu", not {engine!r}'
        raise ValueError(message)
    return _ENGINES[engine] << _ENGINE_SHIFT


def receive(sock: int) -> Status | None:
    """
    Receive the launcher's next message.

    Args:
        sock: The status socket.

    Returns:
        The message; None if the launcher is gone.
    """
    connection = _socket.socket(fileno=sock)
    try:
        room = _socket.CMSG_SPACE(_MOST_FDS * 4)
        data, control, *_ = connection.recvmsg(_LARGEST_STATUS, room, _socket.MSG_CMSG_CLOEXEC)
    finally:
        connection.detach()
    if not data:
        return None
    fds = [fd for _, _, numbers in control for (fd,) in struct.iter_unpack("=i", numbers)]
    kind, value, error, stage, failure = _STATUS.unpack_from(data)
    return Status(kind, value, error, stage, failure, data[_STATUS.size :], fds)


def _above_stdio(fd: int) -> int:
    """Move a descriptor above 2, because the caller's standard streams may be closed."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved
