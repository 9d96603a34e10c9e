"""
The exceptions of the package.

Every exception is a `CriuError` and also a fitting built-in exception, for callers that do not know this package.
"""

from __future__ import annotations

import errno
import os

_LIMITS = {errno.EMFILE: ("RLIMIT_NOFILE", "-n"), errno.EFBIG: ("RLIMIT_FSIZE", "-f")}


class CriuError(Exception):
    """Base of all exceptions of this package."""


class TransportError(CriuError, ConnectionError):
    """criu could not be reached, or the connection broke before its answer."""


class OperationRefused(CriuError, RuntimeError):
    """
    criu refused the operation, or failed in it.

    Attributes:
        operation: "dump", "restore" or another.
        errno: The errno that criu reported; 0 for most failures.
        reason: The first relevant error in criu's log; empty if there is none.
        log_path: The path of criu's log; None if the operation has none.
        log_tail: The last lines of the log.
        hint: What a known reason means and what to do about it; None for another.
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
        """Drop the path of a log that is about to be removed; its tail stays."""
        self.args = (str(self.args[0]).replace(f" [{self.log_path}]", ""),)
        self.log_path = None


class BinaryNotFound(CriuError, FileNotFoundError):
    """The criu program was not found."""


class VersionError(CriuError, RuntimeError):
    """The criu program is too old for the operation."""


class UnsupportedFeature(CriuError, NotImplementedError):
    """The libcriu of this build, or this system or process, does not support the operation."""


class ImageError(CriuError, ValueError):
    """An image file is missing, damaged or of an unknown kind."""


class SnapshotError(CriuError):
    """A snapshot directory cannot be used."""


class SnapshotMismatch(SnapshotError, ValueError):
    """A snapshot does not fit this machine, system or interpreter."""


class SnapshotUnsafe(SnapshotError, PermissionError):
    """Another user could have changed the snapshot."""


class CheckpointError(CriuError, RuntimeError):
    """No checkpoint was taken."""


class RestoreError(CriuError, RuntimeError):
    """A snapshot could not be restored."""


class HookError(CriuError, RuntimeError):
    """A checkpoint hook failed, or cannot be registered now."""


def in_words(error: BaseException) -> str:
    """Return an exception's message for people; an OSError's without its number and the quotes around its file."""
    if not isinstance(error, OSError) or not error.strerror:
        return printable(str(error))
    why = error.strerror + _limit(error)
    return printable(why if error.filename is None else f"{os.fsdecode(error.filename)}: {why}")


def _limit(error: OSError) -> str:
    """Say of what there is too little, where a system error's own words leave that out."""
    import resource

    if error.errno == errno.EPIPE and error.filename is None:
        return ": whoever was to read this has ended"
    name, option = _LIMITS.get(error.errno or 0, ("", ""))
    soft = resource.getrlimit(getattr(resource, name))[0] if name else resource.RLIM_INFINITY
    return "" if soft == resource.RLIM_INFINITY else f" (the limit is {soft}; ulimit {option})"


def printable(text: str) -> str:
    """Return a text with its control characters written out: what files say must not move anybody's cursor."""
    return "".join(
        char if char == "\n" or char.isprintable() or "\udc80" <= char <= "\udcff" else ascii(char)[1:-1]
        for char in text
    )
