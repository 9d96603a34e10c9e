"""
Find files that are mapped shared and writable: criu maps the same file in each copy.

So copies write into each other's memory, and into the original's. A file in /dev/shm is nothing but memory, so a dump
with one is refused, unless a rule allows it because the program means to share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.findings import policies
from libcriu_py.findings.finding import Finding, Verdict
from libcriu_py.linux.maps import mapped_ranges

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY = "/dev/shm/"  # noqa: S108 - looked at only
_NO_FILES = ("/dev/", "/SYSV", "/memfd:", "/anon_hugepage", "/proc/", "/sys/")
_NAMED = 3
_ADVICE = "every copy writes into this very file; map it in the copies, in main or in after_restore"
_REFUSAL = (
    "every copy would have this very memory and write into that of the others; make it in the copies, in main or in "
    'after_restore, or allow it by a rule (action = "ignore", kind = "shared memory", docs/resources.md)'
)


def findings() -> Iterator[Finding]:
    """Find what this process has mapped shared and writable."""
    for path in _paths():
        in_memory = path.startswith(_MEMORY)
        kind = "shared memory" if in_memory else "shared mapping"
        found = Finding(
            kind, path, Verdict.NEEDS_HOOK if in_memory else Verdict.FINE, _REFUSAL if in_memory else _ADVICE
        )
        action = policies.first_fit(policies.in_force, found)
        if action == "ignore":
            found = found._replace(verdict=Verdict.FINE, advice=_ADVICE)
        elif action == "error":
            found = found._replace(verdict=Verdict.NEEDS_HOOK)
        yield found


def warning() -> str | None:
    """Return one line on the mappings that do not prevent a dump, and what to do; None if there are none."""
    found = [finding.what for finding in findings() if not finding.is_problem]
    if not found:
        return None
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return (
        f"copies share, and write into, what is mapped of {', '.join(found[:_NAMED])}{more}; map such in the copies: "
        "in main, or in after_restore"
    )


def _paths() -> list[str]:
    """Return the files, sorted, without deleted ones, of which each copy gets its own."""
    found = {
        mapped.path for mapped in mapped_ranges(having="s ") if "w" in mapped.permissions and "s" in mapped.permissions
    }
    return sorted(
        path
        for path in found
        if path.startswith("/")
        and not path.endswith(" (deleted)")
        and (path.startswith(_MEMORY) or not path.startswith(_NO_FILES))
    )
