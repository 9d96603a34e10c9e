"""
The exceptions of the package.

Every exception is a `CriuError` and also the builtin that fits it, so that
code which knows nothing of this package can still tell them apart.
"""

from __future__ import annotations

import os

__all__ = [
    "BinaryNotFound",
    "CheckpointError",
    "CriuError",
    "HookError",
    "ImageError",
    "OperationRefused",
    "RestoreError",
    "SnapshotError",
    "SnapshotMismatch",
    "SnapshotUnsafe",
    "TransportError",
    "UnsupportedFeature",
    "VersionError",
    "in_words",
]


class CriuError(Exception):
    """Base of all exceptions of this package."""


class TransportError(CriuError, ConnectionError):
    """criu could not be reached, or the connection to it broke before it answered."""


class OperationRefused(CriuError, RuntimeError):
    """
    criu answered that it cannot do what was asked.

    Attributes:
        operation: What was asked: "dump", "restore", ...
        errno: The errno that criu reported, 0 for most failures.
        reason: The first error in criu's log that is not noise, empty when there is none.
        log_path: The path of criu's log, None when there is none for this operation.
        log_tail: The last lines of the log.
        hint: What the reason means and what to do about it, None when it is not a known one.
        returncode: What libcriu returned.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str = "",
        returncode: int = 0,
        errno: int = 0,
        reason: str = "",
        log_path: str | None = None,
        log_tail: str = "",
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.returncode = returncode
        self.errno = errno
        self.reason = reason
        self.log_path = log_path
        self.log_tail = log_tail
        self.hint = hint

    def forget_log(self) -> None:
        """Leave the log's path out, where the log is going to be removed; its tail stays."""
        self.args = (str(self.args[0]).replace(f" [{self.log_path}]", ""),)
        self.log_path = None


class BinaryNotFound(CriuError, FileNotFoundError):
    """There is no criu program where one was looked for."""


class VersionError(CriuError, RuntimeError):
    """The criu is too old for what was asked."""


class UnsupportedFeature(CriuError, NotImplementedError):
    """The libcriu that this package was built against lacks the function."""


class ImageError(CriuError, ValueError):
    """An image file is missing, damaged or of an unknown kind."""


class SnapshotError(CriuError):
    """A snapshot directory cannot be used."""


class SnapshotMismatch(SnapshotError, ValueError):
    """A snapshot was made by, or for, something that is different here."""


class SnapshotUnsafe(SnapshotError, PermissionError):
    """A snapshot could have been changed by somebody else."""


class CheckpointError(CriuError, RuntimeError):
    """A self-checkpoint was not taken."""


class RestoreError(CriuError, RuntimeError):
    """A snapshot was not restored."""


class HookError(CriuError, RuntimeError):
    """A checkpoint hook was registered or used in a way that cannot work."""


def in_words(error: BaseException) -> str:
    """Say for people what an exception says: one of the system without its number and the quotes of its file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)
