"""What criu's log tells of a refusal, and the exception made of it."""

from __future__ import annotations

import os

from libcriu_py.criu.hints import find_hint
from libcriu_py.errors import OperationRefused

LOG_TAIL_LINES = 30
"""How many of the last lines of CRIU's log a refusal carries."""

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
    if log_path is not None and _is_full(log_path):
        return "the disk is full, and so there is no log: make room, or name another directory"
    return "it gave no reason (set log_level to 4 and look at its log)"


def _is_full(log_path: str) -> bool:
    try:
        place = log_path if os.path.exists(log_path) else os.path.dirname(log_path)
        return os.statvfs(place).f_bavail == 0
    except OSError:
        return False
