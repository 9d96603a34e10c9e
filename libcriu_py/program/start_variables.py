"""
Environment variables that an interpreter reads only at its start, and their values at the dump.

A copy can no longer follow them. So the launcher starts the program conventionally if one of them has changed since
the dump (Doc/using/cmdline.rst, Python/initconfig.c).
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    "PYTHONWARNDEFAULTENCODING",
    "PYTHON_CONTEXT_AWARE_WARNINGS",
    "PYTHON_CPU_COUNT",
    "PYTHON_DISABLE_REMOTE_DEBUG",
    "PYTHON_FROZEN_MODULES",
    "PYTHON_GIL",
    "PYTHON_JIT",
    "PYTHON_LAZY_IMPORTS",
    "PYTHON_PERF_JIT_SUPPORT",
    "PYTHON_THREAD_INHERIT_CONTEXT",
    "PYTHON_TLBC",
)
OF_INTERPRETER = ("HOME", "PYTHONINSPECT", "PYTHONINTMAXSTRDIGITS", "PYTHONPATH", "PYTHONTRACEMALLOC", "PYTHONWARNINGS")
"""
Those that copies can follow, but an interpreter's only nearly: modules are imported already, with their filters, from
where HOME was, and an interpreter ends where it cannot understand a number.
"""


def recorded(env: Mapping[str, str], more: Iterable[str] = ()) -> dict[str, str]:
    """
    Return each variable with its value, for the launch record; empty if not set.

    The interpreter too treats an empty variable as not set. With -E or -I it ignores its own.

    Args:
        env: The environment.
        more: Further names.
    """
    heeded = (name for name in (*FIXED, *more) if not (sys.flags.ignore_environment and name.startswith("PYTHON")))
    return {name: env.get(name, "") for name in heeded}
