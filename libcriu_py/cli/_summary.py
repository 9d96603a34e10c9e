"""Print what came of ``libcriu-py snapshot``."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import count, size

if TYPE_CHECKING:
    from libcriu_py.snapshot.manifest import Snapshot

SPIN_COUNT = "3000"
"""Rounds that threads of GCC's OpenMP should spin before they sleep: about 50 us. The default is 300,000."""


def show(snapshot: Snapshot, directory: str, seconds: float) -> None:
    """Print a summary of a snapshot that took some seconds; the directory is its path as the user typed it."""
    total = sum(file.size for file in snapshot.launch.files.values())
    modules = snapshot.details.get("modules")
    print(f"snapshot: {snapshot.path} ({size(total)}, made in {seconds:.1f} s)")
    if modules is not None:
        print(f"preloaded: {count(modules, 'module')} (libcriu-py inspect {quoted(directory)} lists them)")
    is_bare = snapshot.program is not None and snapshot.program.kind == "interpreter"
    program = "[SCRIPT | -m MODULE | -c SOURCE] " if is_bare else ""
    print(f"run it: libcriu-py run {quoted(directory)} {program}[ARGUMENTS ...]")
    if _spins(snapshot):
        print(
            "tip: OpenMP threads spin for milliseconds before they sleep, which delays every copy's start; make the "
            f"snapshot with GOMP_SPINCOUNT={SPIN_COUNT} in the environment to avoid that (docs/warm-up.md)"
        )


def quoted(path: str, *, starts: bool = False) -> str:
    """Return a path quoted for a shell, and not mistakable for an option or a command on PATH."""
    here = path.startswith("-") or (starts and os.sep not in path)
    return shlex.quote(os.path.join(os.curdir, path) if here else path)


def _spins(snapshot: Snapshot) -> bool:
    """Return whether the program has GCC's OpenMP, with the default spinning."""
    if any(name in os.environ for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")):
        return False
    return any(os.path.basename(file.path).startswith("libgomp") for file in snapshot.launch.mapped)
