"""Which packages and modules are plugins of pytest, whose assertions it rewrites."""

from __future__ import annotations

from importlib import metadata

from _pytest.config import _iter_rewritable_modules


def names() -> set[str]:
    """Return the names of installed ones, as pytest finds them (Config._mark_plugins_for_rewrite)."""
    found = (
        str(file)
        for distribution in metadata.distributions()
        if any(entry_point.group == "pytest11" for entry_point in distribution.entry_points)
        for file in distribution.files or ()
    )
    return {*_iter_rewritable_modules(found)} - {"libcriu_py"}
