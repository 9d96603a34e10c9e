"""Start copies by what CRIU itself offers: its command, and its Python package."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.measure import RunError, Sample, Unavailable, measure
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import Snapshot, environment
from benchmarks.ways import Start
from libcriu_py.criu.find import find_criu
from libcriu_py.linux.runtime_dir import criu_environment
from libcriu_py.linux.sockets import socketpair
from libcriu_py.snapshot.manifest import SLOTS
from libcriu_py.snapshot.request import Request, send_request

PROGRAM = Path(__file__).resolve().with_name("pycriu_restore.py")
# The fds of a peer's process: far from those that it opens itself.
SLOT_FDS = {"stdin": 200, "stdout": 201, "stderr": 202, "request": 203}
IMAGES_FD = 204
MEMORY_FD = 205
# A pid that was free a moment ago may be taken, and a failed restore can hold it for a while.
TRIES = 3
PAUSE = 0.5  # seconds


def raw(name: str, scenario: Scenario, snapshot: Snapshot, *, breakpoints: bool = False) -> Start:
    """Return what restores images with the `criu restore` command, with breakpoints as where nobody forbids them."""
    work, inherited = prepare(snapshot, name)
    argv = [find_criu(), "restore", "--unprivileged", "--shell-job", "--verbosity=1"]
    argv += ["--images-dir", str(snapshot.directory / "images")]
    argv += ["--work-dir", work, "--log-file", "raw.log"]
    for fd, key in inherited.items():
        argv += ["--inherit-fd", f"fd[{fd}]:{key}"]
    return lambda: start_peer(argv, scenario, snapshot, breakpoints=breakpoints)


def pycriu(scenario: Scenario, snapshot: Snapshot) -> Start:
    """Return what restores the same images with CRIU's own Python package, as installed or from $PYCRIU."""
    work, inherited = prepare(snapshot, "pycriu")
    source = os.environ.get("PYCRIU")
    if not (Path(source, "pycriu").is_dir() if source else importlib.util.find_spec("pycriu")):
        message = "pycriu is not installed, and PyPI does not have it: build CRIU's source (make lib)"
        raise Unavailable(f"{message} and give its lib directory as PYCRIU")
    if importlib.util.find_spec("google.protobuf") is None:
        raise Unavailable("pycriu needs the package protobuf, which is not installed")
    argv = [sys.executable, str(PROGRAM), find_criu(), str(IMAGES_FD), work]
    argv += [f"{fd}={key}" for fd, key in inherited.items()]
    path = {"PYTHONPATH": source} if source else {}
    return lambda: start_peer(argv, scenario, snapshot, path)


def prepare(snapshot: Snapshot, name: str) -> tuple[str, dict[int, str]]:
    """Return a directory for a peer's logs, outside the snapshot, and which fd takes the place of which file."""
    if snapshot.launch.mode != "root":
        raise Unavailable(f"{name} alone cannot restore a snapshot of mode {snapshot.launch.mode}")
    logs = snapshot.directory.with_name(snapshot.directory.name + "-logs")
    logs.mkdir(exist_ok=True)
    fds = {SLOT_FDS[slot]: key for slot, key in zip(SLOTS, snapshot.launch.slots, strict=True)}
    fds[IMAGES_FD] = snapshot.launch.images_key
    if snapshot.memory_key is not None:
        fds[MEMORY_FD] = snapshot.memory_key
    return str(logs), fds


def start_peer(
    argv: list[str],
    scenario: Scenario,
    snapshot: Snapshot,
    variables: Mapping[str, str] = {},
    *,
    breakpoints: bool = False,
) -> Sample:
    """
    Run a command that restores the images, with the fds of the hand-over.

    criu has the settings that it has under `libcriu-py run`, its cache of kernel features included, so that only the
    way there differs. What is asked of the restored program is prepared before the time is taken.
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
        images = os.open(snapshot.directory / "images", os.O_RDONLY | os.O_DIRECTORY)
        given = {SLOT_FDS["request"]: theirs, IMAGES_FD: images}
        if snapshot.memory_key is not None:
            given[MEMORY_FD] = os.open(snapshot.directory / "memory.img", os.O_RDONLY)
        copies = [(number, SLOT_FDS[name]) for number, name in enumerate(("stdin", "stdout", "stderr"))]
        copies += [(fd, number) for number, fd in given.items()]
        try:
            return measure(argv, env={**env, **settings, **variables}, copies=copies, expect=scenario.expect)
        except RunError:
            if left == 0:
                raise
            time.sleep(PAUSE)
        finally:
            for fd in (ours, *given.values()):
                os.close(fd)
    raise AssertionError  # the loop returns or raises
