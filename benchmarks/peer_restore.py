"""Start copies by what CRIU itself offers: its command, and its Python package."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.common import RunError, Sample, measure
from benchmarks.snapshots import Snapshot, Unavailable, environment
from benchmarks.variants import PYCRIU, Variant
from libcriu_py.criu.find import find_criu
from libcriu_py.linux.runtime_dir import criu_environment
from libcriu_py.linux.support import socketpair
from libcriu_py.snapshot.request import Request, send_request

if TYPE_CHECKING:
    from benchmarks.scenarios import Scenario

PEERS = Path(__file__).resolve().parent / "peers"
# The fds of a peer's process: far from those that it opens itself.
SLOT_FDS = {"stdin": 200, "stdout": 201, "stderr": 202, "request": 203}
IMAGES_FD = 204
MEMORY_FD = 205
# A pid that was free a moment ago may be taken, and a failed restore can hold it
# for a while.
TRIES = 3
PAUSE = 0.5  # seconds


def raw(name: str, scenario: Scenario, snapshot: Snapshot, *, breakpoints: bool = False) -> Variant:
    """
    Restore the same images with the ``criu restore`` command.

    Args:
        name: RAW or RAW_COPIED.
        scenario: The program.
        snapshot: Its snapshot.
        breakpoints: Whether criu uses hardware breakpoints, which it does where nobody tells it not to.

    Raises:
        Unavailable: The snapshot needs a namespace that the command lacks.
    """
    require_plain(snapshot, "criu restore")
    argv = [find_criu(), "restore", "--unprivileged", "--shell-job", "--verbosity=1"]
    argv += ["--images-dir", str(snapshot.images)]
    argv += ["--work-dir", str(work_dir(snapshot)), "--log-file", "raw.log"]
    for fd, key in inherited(snapshot).items():
        argv += ["--inherit-fd", f"fd[{fd}]:{key}"]
    return Variant(name, lambda: start_peer(argv, scenario, snapshot, breakpoints=breakpoints))


def pycriu(scenario: Scenario, snapshot: Snapshot, source: Path | None) -> Variant:
    """
    Restore the same images with CRIU's own Python package.

    Args:
        scenario: The program.
        snapshot: Its snapshot.
        source: The built ``lib`` directory of CRIU's source; None takes the
            package that is installed.

    Raises:
        Unavailable: The package is not there, or cannot restore this snapshot.
    """
    require_plain(snapshot, "pycriu")
    there = (source / "pycriu") if source else importlib.util.find_spec("pycriu")
    if there is None or (isinstance(there, Path) and not there.is_dir()):
        message = (
            "pycriu is not installed, and PyPI does not have it: build CRIU's source"
            " (make lib) and give its lib directory with --pycriu"
        )
        raise Unavailable(message)
    if importlib.util.find_spec("google.protobuf") is None:
        message = "pycriu needs the package protobuf, which is not installed"
        raise Unavailable(message)
    argv = [sys.executable, str(PEERS / "pycriu_restore.py"), find_criu()]
    argv += [str(IMAGES_FD), str(work_dir(snapshot))]
    argv += [f"{fd}={key}" for fd, key in inherited(snapshot).items()]
    path = {"PYTHONPATH": str(source)} if source else {}
    return Variant(PYCRIU, lambda: start_peer(argv, scenario, snapshot, path))


def require_plain(snapshot: Snapshot, name: str) -> None:
    """
    Check that a snapshot can be restored without help.

    Args:
        snapshot: The snapshot.
        name: What is to restore it.

    Raises:
        Unavailable: It cannot.
    """
    if snapshot.mode != "root":
        message = f"{name} alone cannot restore a snapshot of mode {snapshot.mode}"
        raise Unavailable(message)


def work_dir(snapshot: Snapshot) -> Path:
    """
    Return a directory for the peers' logs, outside the snapshot.

    Args:
        snapshot: The snapshot.
    """
    path = snapshot.directory.with_name(snapshot.directory.name + "-logs")
    path.mkdir(exist_ok=True)
    return path


def inherited(snapshot: Snapshot) -> dict[int, str]:
    """
    Return which fd takes the place of which file.

    Args:
        snapshot: The snapshot.
    """
    fds = {SLOT_FDS[name]: key for name, key in snapshot.slots.items()}
    fds[IMAGES_FD] = snapshot.images_key
    if snapshot.memory_key is not None:
        fds[MEMORY_FD] = snapshot.memory_key
    return fds


def start_peer(
    argv: list[str],
    scenario: Scenario,
    snapshot: Snapshot,
    extra: dict[str, str] | None = None,
    *,
    breakpoints: bool = False,
) -> Sample:
    """
    Run a command that restores the images, with the fds of the hand-over.

    criu has the settings that it has under ``libcriu-py run``, its cache of kernel features included, so that only the
    way there differs. What is asked of the restored program is prepared before the time is taken.

    Args:
        argv: The command.
        scenario: The program.
        snapshot: Its snapshot.
        extra: More variables for the command's environment.
        breakpoints: Whether criu uses hardware breakpoints.

    Raises:
        RunError: It failed ``TRIES`` times.
    """
    env = environment()
    request = Request(
        argv=[],
        env={os.fsencode(k): os.fsencode(v) for k, v in env.items()},
        cwd=os.fsencode(Path.cwd()),
        umask=0o022,
        launched=0.0,
        snapshot=str(snapshot.directory),
    )
    settings = {os.fsdecode(k): os.fsdecode(v) for k, v in criu_environment(find_criu()).items()}
    if breakpoints:
        del settings["CRIU_FAULT"]
    for left in reversed(range(TRIES)):
        ours, theirs = socketpair()
        send_request(ours, request, [])
        given = {SLOT_FDS["request"]: theirs, IMAGES_FD: os.open(snapshot.images, os.O_RDONLY | os.O_DIRECTORY)}
        if snapshot.memory_key is not None:
            given[MEMORY_FD] = os.open(snapshot.memory, os.O_RDONLY)
        copies = [(number, SLOT_FDS[name]) for number, name in enumerate(("stdin", "stdout", "stderr"))]
        copies += [(fd, number) for number, fd in given.items()]
        try:
            return measure(argv, env={**env, **settings, **(extra or {})}, copies=copies, expect=scenario.expect)
        except RunError:
            if left == 0:
                raise
            time.sleep(PAUSE)
        finally:
            for fd in (ours, *given.values()):
                os.close(fd)
    raise AssertionError  # the loop returns or raises
