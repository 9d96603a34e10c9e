"""
Run CPython's own tests with the workers of `warm_context`, wherever they ask for those of "spawn".

    python tests/cpython/warm_workers.py [OPTIONS of python -m test] MODULE
"""

from __future__ import annotations

import runpy
import sys
from multiprocessing import context
from typing import Any


def install() -> None:
    """Have a warm context in the place of the context "spawn"."""
    import libcriu_py

    warm = libcriu_py.warm_context(["test.support", "unittest"])
    known: Any = context
    known._concrete_contexts["spawn"] = warm
    known.Process.executable = warm.executable  # where a test makes that the context of all


if __name__ == "__main__":
    del sys.path[0]  # as `python -m test` has it: not our directory
    install()
    runpy.run_module("test", run_name="__main__", alter_sys=True)
