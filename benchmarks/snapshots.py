"""Snapshots of the scenarios' programs, made with the command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import RunError
from libcriu_py.images.readers import dump_stats

if TYPE_CHECKING:
    from benchmarks.scenarios import Scenario

# Set by build services and container images, and felt by every start: bytecode
# that is not kept is compiled each time.
UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class Unavailable(Exception):
    """Say by name what is missing for a way to start."""


class Snapshot(NamedTuple):
    """A snapshot of a scenario's program."""

    directory: Path
    slots: dict[str, str]
    """The inherit-fd key of each slot."""
    images_key: str
    memory_key: str | None
    """The key of the file from which copies map their memory, None where it is copied."""
    mode: str
    image_bytes: int
    """What its files take on the disk."""
    seconds: float
    """How long it took to make: imports, dump, and what is done with the images."""
    frozen: float
    """The seconds of these in which criu had the program stopped."""

    @property
    def images(self) -> Path:
        """Return the directory of criu's own files."""
        return self.directory / "images"

    @property
    def memory(self) -> Path:
        """Return the file from which copies map their memory."""
        return self.directory / "memory.img"


def environment() -> dict[str, str]:
    """Return the environment for everything that is measured."""
    return {k: v for k, v in os.environ.items() if k not in UNWANTED}


def command(name: str = "libcriu-py") -> str:
    """
    Return the path of a command of this environment.

    Args:
        name: The command.

    Raises:
        Unavailable: The package is not installed in this environment.
    """
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        message = f"{name} is not installed here: pip install ."
        raise Unavailable(message)
    return found


def take_snapshot(scenario: Scenario, directory: Path, memory: str = "auto", *, warm: bool = False) -> Snapshot:
    """
    Make a snapshot of a scenario's program with the command.

    Args:
        scenario: What to snapshot.
        directory: Where; it must not exist.
        memory: How copies get theirs: `copy` has it read, `map` mapped from one file; `auto` is what users get.
        warm: Whether the program is run before it is saved, and not only its imports are done.

    Raises:
        RunError: The command failed.
    """
    start = time.monotonic()
    done = subprocess.run(
        [
            command(),
            "snapshot",
            "-o",
            str(directory),
            "--warm-up" if warm else "--learn",
            "",
            "--exit",
            "fast",
            str(scenario.program),
        ],
        env={**environment(), **scenario.env, "LIBCRIU_PY_MEMORY": memory},
        cwd=directory.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        message = f"no snapshot of {scenario.program.name}: {done.stderr.strip()}"
        raise RunError(message)
    seconds = time.monotonic() - start
    manifest = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    files = [path for path in directory.rglob("*") if path.is_file()]
    return Snapshot(
        directory,
        dict(manifest["slots"]),
        str(manifest["images_key"]),
        (manifest.get("memory") or {}).get("key"),
        str(manifest["mode"]),
        sum(path.stat().st_blocks * 512 for path in files),
        seconds,
        dump_stats(directory / "images")["frozen_time"] / 1e6,
    )
