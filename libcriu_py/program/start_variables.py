"""
Variables of the environment that an interpreter reads once, at its start, and what they were at the dump.

A copy cannot follow them any more. A launcher, which is to behave as if the program had been typed, starts it
conventionally where one of them is not as it was (Doc/using/cmdline.rst, Python/initconfig.c).
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
    Return what the manifest records: each variable and its value, which is empty where it is not set.

    An empty variable counts as not set for the interpreter too. One that ignores its environment (-E, -I) has none.
    """
    if sys.flags.ignore_environment:
        return {}
    return {name: env.get(name, "") for name in FIXED}
