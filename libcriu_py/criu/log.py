"""Reading criu's log to explain a refusal."""

from __future__ import annotations

import os

from libcriu_py.criu.hints import find_hint
from libcriu_py.errors import OperationRefused

LOG_TAIL_LINES = 30
"""The number of last lines of CRIU's log that a refusal carries."""

_LOG_READ_LIMIT = 16 << 20

# Successful runs print these errors too, so they are never the reason of a failure.
_HARMLESS = (
    "Can't setup RLIMIT_NOFILE",
    "Unexpected error",
    "Can't get tls handshake",
    "Unable to open /sys/kernel/debug",
)

# Consequences of an earlier error; the reason only if there is no other.
_CONSEQUENCES = ("Dumping FAILED", "Pre-dumping FAILED", "Restoring FAILED", "Aborting", "Unable to detach from")


def refusal(operation: str, returncode: int, errno_: int, log_path: str | None, output: str = "") -> OperationRefused:
    """
    Build the exception for an operation that criu refused.

    Args:
        operation: The operation: "dump", "restore", ...
        returncode: What libcriu returned.
        errno_: The errno that criu reported; 0 for none.
        log_path: The path of criu's log; None if it wrote none.
        output: What criu printed.

    Returns:
        The exception, with reason, log tail and hint taken from the log.
    """
    log = read_log(log_path) or output
    # If criu prints but does not log, its first line is the reason (check_caps in criu/cr-check.c).
    errors = log_errors(log) or [line.strip(" :") for line in output.splitlines() if line.strip()][:1]
    reason = errors[0] if errors else ""

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
    Return the first 16 MiB of a criu log; empty if it cannot be read.

    Args:
        log_path: The path of the log; None for none.
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
    Return the errors in a criu log, without noise; those that only report the end of the operation come last.

    A line reads `(00.012345)    123: Error (criu/files.c:12): message`.

    Args:
        log: The text of the log.

    Returns:
        `file.c:line: message` for each error.
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
    if log_path is not None and _is_full(log_path):
        return "the disk is full, so there is no log: make room, or name another directory"
    return "it gave no reason (set log_level to 4 and look at its log)"


def _is_full(log_path: str) -> bool:
    try:
        place = log_path if os.path.exists(log_path) else os.path.dirname(log_path)
        return os.statvfs(place).f_bavail == 0
    except OSError:
        return False
