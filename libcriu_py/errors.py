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
    "refusal",
]

LOG_TAIL_LINES = 30
"""
How many of the last lines of CRIU's log a refusal carries.
"""

_LOG_READ_LIMIT = 16 << 20

# Printed as errors by runs that succeed, so never the reason of a failure.
_HARMLESS = (
    "Can't setup RLIMIT_NOFILE",
    "Unexpected error",
    "Can't get tls handshake",
    "Unable to open /sys/kernel/debug",
)

# Consequences of an error that was printed before; a reason only when there is nothing else.
_CONSEQUENCES = ("Dumping FAILED", "Pre-dumping FAILED", "Restoring FAILED", "Aborting", "Unable to detach from")


class CriuError(Exception):
    """
    Base of all exceptions of this package.
    """


class TransportError(CriuError, ConnectionError):
    """
    criu could not be reached, or the connection to it broke before it answered.
    """


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
        """
        Leave the log's path out, where the log is going to be removed; its tail stays.
        """
        self.args = (str(self.args[0]).replace(f" [{self.log_path}]", ""),)
        self.log_path = None


class BinaryNotFound(CriuError, FileNotFoundError):
    """
    There is no criu program where one was looked for.
    """


class VersionError(CriuError, RuntimeError):
    """
    This criu is too old for what was asked.
    """


class UnsupportedFeature(CriuError, NotImplementedError):
    """
    The libcriu that this package was built against lacks the function.
    """


class ImageError(CriuError, ValueError):
    """
    An image file is missing, damaged or of an unknown kind.
    """


class SnapshotError(CriuError):
    """
    A snapshot directory cannot be used.
    """


class SnapshotMismatch(SnapshotError, ValueError):
    """
    A snapshot was made by, or for, something that is different here.
    """


class SnapshotUnsafe(SnapshotError, PermissionError):
    """
    A snapshot could have been changed by somebody else.
    """


class CheckpointError(CriuError, RuntimeError):
    """
    A self-checkpoint was not taken.
    """


class RestoreError(CriuError, RuntimeError):
    """
    A snapshot was not restored.
    """


class HookError(CriuError, RuntimeError):
    """
    A checkpoint hook was registered or used in a way that cannot work.
    """


def in_words(error: BaseException) -> str:
    """
    Say for people what an exception says: one of the system without its number and the quotes of its file.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def refusal(operation: str, returncode: int, errno_: int, log_path: str | None, output: str = "") -> OperationRefused:
    """
    Build the exception for an operation that criu refused.

    Args:
        operation: What was asked: "dump", "restore", ...
        returncode: What libcriu returned.
        errno_: The errno that criu reported, 0 for none.
        log_path: criu's log of this operation, None if it wrote none.
        output: What criu wrote instead of a log.

    Returns:
        The exception, with reason, log tail and hint taken from the log.
    """
    log = read_log(log_path) or output
    # Where criu prints but does not log, its first words are the reason (check_caps in criu/cr-check.c).
    errors = log_errors(log) or [line.strip(" :") for line in output.splitlines() if line.strip()][:1]
    reason = errors[0] if errors else ""

    from libcriu_py.hints import find_hint

    hint = find_hint(errors, errno_)
    message = f"criu refused to {operation}: {reason or _without_reason(errno_, log_path)}"
    if hint:
        message = f"{message}; {hint}"
    if log_path is not None:
        message = f"{message} [{log_path}]"
    return OperationRefused(
        message,
        operation=operation,
        returncode=returncode,
        errno=errno_,
        reason=reason,
        log_path=log_path,
        log_tail="\n".join(log.splitlines()[-LOG_TAIL_LINES:]),
        hint=hint,
    )


def read_log(log_path: str | None) -> str:
    """
    Return the text of a log of criu.

    Args:
        log_path: The log, None for none.

    Returns:
        At most its first 16 MiB; empty when there is no readable log.
    """
    if log_path is None:
        return ""
    try:
        with open(log_path, "rb") as log:
            return log.read(_LOG_READ_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""


def log_errors(log: str) -> list[str]:
    """
    Return the messages of the error lines of a log of criu, without noise.

    A line reads `(00.012345)    123: Error (criu/files.c:12): message`.

    Args:
        log: The text of the log.

    Returns:
        One `file.c:line: message` per error, first error first.  Errors that
        only report the end of the operation come last.
    """
    found: list[str] = []
    late: list[str] = []
    for line in log.splitlines():
        _, marker, rest = line.partition("Error (")
        where, closed, text = rest.partition("): ")
        if not marker or not closed or any(noise in text for noise in _HARMLESS):
            continue
        entry = f"{where.removeprefix('criu/')}: {text.strip()}"
        (late if any(end in text for end in _CONSEQUENCES) else found).append(entry)
    return found + late


def _without_reason(errno_: int, log_path: str | None) -> str:
    if errno_:
        return os.strerror(errno_)
    if log_path is not None and _is_full(os.path.dirname(log_path)):
        return "the disk is full, and so there is no log: make room, or name another directory"
    return "it gave no reason (set log_level to 4 and look at its log)"


def _is_full(directory: str) -> bool:
    try:
        return os.statvfs(directory).f_bavail == 0
    except OSError:
        return False
