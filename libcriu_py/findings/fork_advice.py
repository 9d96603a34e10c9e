"""Find memory with advice on what a fork does with it, which matters to copies as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux.maps import advised_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

_KNOWN = {
    "wf": (
        Verdict.HANDLED,
        "MADV_WIPEONFORK: copies find zeros there, as a forked child does, and the snapshot does not hold its content",
    ),
    "dc": (
        Verdict.FINE,
        "MADV_DONTFORK: copies have its content; where it belongs to one process, make it anew in after_restore",
    ),
}
"""Verdict and advice by flag (proc_pid_smaps(5))."""


def findings() -> Iterator[Finding]:
    """Find such memory."""
    for mapped, flags in advised_ranges():
        if mapped.path.startswith("["):
            continue  # the kernel's own
        for flag in filter(flags.__contains__, _KNOWN):
            place = f"{mapped.start:x}-{mapped.end:x}"
            yield Finding("memory", f"{place} {mapped.path}".rstrip(), *_KNOWN[flag])
