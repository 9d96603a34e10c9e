"""
What CRIU's errors mean, and what to do about them.
"""

from __future__ import annotations

__all__ = ["find_hint"]


def find_hint(operation: str, errors: list[str], log: str, errno_: int) -> str | None:
    """
    Find the plain words for the reason of a refusal.

    Args:
        operation: What was asked.
        errors: The errors of the log, without noise.
        log: The whole log.
        errno_: What criu reported.

    Returns:
        The hint, None when the reason is not a known one.
    """
    return None
