"""
`tempfile`: a new sequence of names in each copy, and the default directory of the new environment.

`tempfile` reseeds its names after a fork, which it detects by the pid (Lib/tempfile.py, _RandomNameSequence.rng);
copies have the same one.
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

    def before_dump(self) -> None:
        """Find out whether the program chose the directory."""
        module: Any = tempfile
        candidates = [os.path.abspath(path) for path in module._candidate_tempdir_list()]  # noqa: SLF001
        self._chosen = tempfile.tempdir is not None and tempfile.tempdir not in candidates

    def in_copy(self, arrival: Arrival) -> None:  # noqa: ARG002
        """Drop both; `tempfile` makes them on demand."""
        module: Any = tempfile
        module._name_sequence = None  # noqa: SLF001
        if not self._chosen:
            tempfile.tempdir = None
