"""
Directories and files that `tempfile` removes at their end, and that are there at the dump.

Copies have the object and its path, not a file of their own: the first that ends removes what the others use, or cannot
be restored without, where it is open. criu sees nothing in that, and a first copy may be right. Nor can it be put right
from outside: a program may hold the path anywhere.

What a program makes by `mkdtemp` and removes by a function of its own is not seen.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.findings.finding import Finding, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADVICE = "the first copy that ends removes it from under all others; make it in copies: in main, or in after_restore"
_NAMED = 3


def findings() -> Iterator[Finding]:
    """Look for what `tempfile` has made; a program that has not loaded it is not made to."""
    module: Any = sys.modules.get("tempfile")
    if module is None:
        return
    from libcriu_py.program.objects import live

    for directory in live(module.TemporaryDirectory):
        # Since Python 3.12 there are such as are to stay.
        if directory._finalizer.alive and getattr(directory, "_delete", True):  # noqa: SLF001
            yield Finding("temporary directory", os.fsdecode(directory.name), Verdict.FINE, _ADVICE)
    for closer in live(module._TemporaryFileCloser):  # noqa: SLF001
        removed = getattr(closer, "cleanup_called", closer.close_called)  # one may be closed and there, since 3.12
        if closer.delete and not removed:
            yield Finding("temporary file", os.fsdecode(closer.name), Verdict.FINE, _ADVICE)


def warning() -> str | None:
    """Say in one line what there is, and what to do; None where there is nothing."""
    found = [f"{finding.kind} {finding.what}" for finding in findings()]
    if not found:
        return None
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"the first copy that ends removes, from under all others, the {', the '.join(found[:_NAMED])}{more}; "
        "make such in the copies: in main, or in after_restore"
    )
