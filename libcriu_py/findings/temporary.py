"""
Directories and files that exist at the dump and that `tempfile` removes when their owner ends.

Copies have the object and its path, but no file of their own: the first copy that ends removes the file that the others
use, or that they cannot be restored without if it is open. criu does not notice, and the first copy may work. Nor can
this be fixed from outside, because a program may hold the path anywhere.

Directories that a program makes by `mkdtemp` and removes itself are not found.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.findings.finding import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVICE = "the first copy that ends removes it from under all others; create it in copies: in main, or in after_restore"
_NAMED = 3


def findings() -> Iterator[Finding]:
    """Find what `tempfile` has made, without importing it."""
    module: Any = sys.modules.get("tempfile")
    if module is None:
        return
    from libcriu_py.program.objects import live

    for directory in live(module.TemporaryDirectory):
        # Since Python 3.12, delete=False makes some that stay.
        if directory._finalizer.alive and getattr(directory, "_delete", True):  # noqa: SLF001
            yield Finding("temporary directory", os.fsdecode(directory.name), Verdict.FINE, _ADVICE)
    for closer in live(module._TemporaryFileCloser):  # noqa: SLF001
        removed = getattr(closer, "cleanup_called", closer.close_called)  # since 3.12, a closed file may still exist
        if closer.delete and not removed:
            yield Finding("temporary file", os.fsdecode(closer.name), Verdict.FINE, _ADVICE)


def warning() -> str | None:
    """Return a warning of one line that says what to do; None if there are no such files."""
    found = [f"{finding.kind} {finding.what}" for finding in findings()]
    if not found:
        return None
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"the first copy that ends removes, from under all others, the {', the '.join(found[:_NAMED])}{more}; "
        "create them in copies: in main, or in after_restore"
    )
