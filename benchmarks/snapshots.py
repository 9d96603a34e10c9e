"""Snapshots of the scenarios' programs, made with the command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import RunError, Unavailable
from benchmarks.scenarios import Scenario
from libcriu_py.images.readers import dump_stats
from libcriu_py.snapshot import launcher, record
from libcriu_py.snapshot.record import LAUNCH

# Set by build services and container images, and felt by every start: bytecode that is not kept is compiled each time.
# The engine is one of the things that are compared.
UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "LIBCRIU_PY_ENGINE")
ENGINES = (NATIVE, CRIU) = ("native", "criu")
REFUSAL = re.compile(r"the native engine cannot dump this process: it (.*?)(?:; put that right|$)", re.MULTILINE)


class NotEligible(RunError):
    """The native engine refuses a program; the message says what this has, as a predicate."""


class Snapshot(NamedTuple):
    """A snapshot of a scenario's program."""

    directory: Path
    launch: record.Launch
    image_bytes: int
    """What its files take on the disk."""
    seconds: float
    """How long it took to make: imports, dump, and what is done with the images."""
    frozen: float | None
    """The seconds of these in which criu had the program stopped; None by the native engine."""

    @property
    def memory_key(self) -> str | None:
        """Return the inherit-fd key of the file from which copies map their memory, None where it is copied."""
        return self.launch.memory_files[0].key if self.launch.memory_files else None


def environment() -> dict[str, str]:
    """Return the environment for everything that is measured."""
    return {k: v for k, v in os.environ.items() if k not in UNWANTED}


def command(name: str = "libcriu-py") -> str:
    """Return the path of a command of this environment; raise Unavailable where the package is not installed."""
    if name == launcher.NAME:
        return launcher.path()
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise Unavailable(f"{name} is not installed here: pip install .")
    return found


def run_command(
    *words: str, env: Mapping[str, str] | None = None, memory: str = "auto", cwd: Path | None = None
) -> None:
    """
    Run one of the package's commands; raise RunError if it fails, and NotEligible where the native engine refuses.

    Args:
        words: Its arguments.
        env: More variables for it.
        memory: How copies of a new snapshot get theirs: `copy` has it read, `map` mapped from one file; `auto` is what
            users get.
        cwd: Its working directory; this process' by default.
    """
    done = subprocess.run(
        [command(), *words],
        env={**environment(), **(env or {}), "LIBCRIU_PY_MEMORY": memory},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if refusal := REFUSAL.search(done.stderr if done.returncode else ""):
        raise NotEligible(refusal[1])
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RunError(f"libcriu-py {words[0]} of {Path(words[-1]).name}: {said[-1]}")


def take_snapshot(
    scenario: Scenario, directory: Path, memory: str = "auto", *, warm: bool = False, engine: str = CRIU
) -> Snapshot:
    """
    Make a snapshot of a scenario's program.

    Args:
        scenario: What to snapshot.
        directory: Where; it must not exist.
        memory: As for `run_command`.
        warm: Whether the program is run before it is saved, and not only its imports are done.
        engine: What dumps and restores it.

    Raises:
        NotEligible: The native engine cannot dump the program.
    """
    start = time.monotonic()
    kind = "--warm-up" if warm else "--learn"
    words = ("-o", str(directory), "--engine", engine, kind, "", "--exit", "fast", str(scenario.program))
    run_command("snapshot", *words, env=scenario.env, memory=memory, cwd=directory.parent)
    seconds = time.monotonic() - start
    return Snapshot(
        directory,
        record.decode((directory / LAUNCH).read_bytes()),
        sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file()),
        seconds,
        dump_stats(directory / "images")["frozen_time"] / 1e6 if engine == CRIU else None,
    )
