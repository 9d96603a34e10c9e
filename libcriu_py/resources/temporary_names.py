"""
`tempfile`: names that copies do not share, in the directory that the new environment asks for.

The sequence of names is made anew after a fork, which is noticed by the pid (Lib/tempfile.py, _RandomNameSequence.rng),
and that is the same in each copy.
"""

from __future__ import annotations

import os
import tempfile
from typing import Any

from libcriu_py.resources.base import Arrival, BuiltIn


class TemporaryNames(BuiltIn):
    """The sequence of names, and the default directory unless the program chose one."""

    def __init__(self) -> None:
        self._chosen = True

    def let_go(self) -> None:
        """Find out whether the directory is the default one."""
        module: Any = tempfile
        candidates = [os.path.abspath(path) for path in module._candidate_tempdir_list()]  # noqa: SLF001
        self._chosen = tempfile.tempdir is not None and tempfile.tempdir not in candidates

    def put_right(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Forget both; they are made when they are needed."""
        module: Any = tempfile
        module._name_sequence = None  # noqa: SLF001
        if not self._chosen:
            tempfile.tempdir = None
