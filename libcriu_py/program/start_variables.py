"""
Environment variables that an interpreter reads only at its start, and their values at the dump.

A copy can no longer follow them. So the launcher starts the program conventionally if one of them has changed since
the dump (Doc/using/cmdline.rst, Python/initconfig.c).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

FIXED = (
    "PYTHONDEBUG",
    "PYTHONDEVMODE",
    "PYTHONDUMPREFS",
    "PYTHONEXECUTABLE",
    "PYTHONHASHSEED",
    "PYTHONHOME",
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONNODEBUGRANGES",
    "PYTHONNOUSERSITE",
    "PYTHONOPTIMIZE",
    "PYTHONPERFSUPPORT",
    "PYTHONPLATLIBDIR",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONSAFEPATH",
    "PYTHONUSERBASE",
    "PYTHONUTF8",
    "PYTHONVERBOSE",
    "PYTHON_FROZEN_MODULES",
    "PYTHON_GIL",
    "PYTHON_JIT",
)


def recorded(env: Mapping[str, str]) -> dict[str, str]:
    """
    Return each variable with its value, for the launch record; empty if not set.

    The interpreter too treats an empty variable as not set. With -E or -I it ignores them all, and none is returned.
    """
    if sys.flags.ignore_environment:
        return {}
    return {name: env.get(name, "") for name in FIXED}
