"""
The ways to start a program that are compared with each other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.common import RunError, Sample, measure
from libcriu_py.binary import find_criu
from libcriu_py.handover import Request, send_request
from libcriu_py.scratch import criu_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.scenarios import Scenario

PEERS = Path(__file__).resolve().parent / "peers"
# The fds of a peer's process: far from those that it opens itself.
SLOT_FDS = {"stdin": 200, "stdout": 201, "stderr": 202, "request": 203}
IMAGES_FD = 204
# A pid that was free a moment ago may be taken, and a failed restore can hold it
# for a while.
TRIES = 3
PAUSE = 0.5  # seconds
# Set by build services and container images, and felt by every start: bytecode
# that is not kept is compiled each time.
UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


class Unavailable(Exception):
    """
    Say by name what is missing for a way to start.
    """


class Variant(NamedTuple):
    """
    A way to start the program of a scenario.
    """

    name: str
    start: Callable[[], Sample]


class Snapshot(NamedTuple):
    """
    A snapshot of a scenario's program.
    """

    directory: Path
    slots: dict[str, str]
    """The inherit-fd key of each slot."""
    images_key: str
    mode: str
    image_bytes: int
    """What its files take on the disk."""
    seconds: float
    """How long it took to make."""

    @property
    def images(self) -> Path:
        """
        Return the directory of criu's own files.
        """
        return self.directory / "images"


def environment() -> dict[str, str]:
    """
    Return the environment for everything that is measured.
    """
    return {k: v for k, v in os.environ.items() if k not in UNWANTED}


def command() -> str:
    """
    Return the path of the ``libcriu-py`` command of this environment.

    Raises:
        Unavailable: The package is not installed in this environment.

    """
    beside = Path(sys.executable).with_name("libcriu-py")
    found = str(beside) if beside.exists() else shutil.which("libcriu-py")
    if found is None:
        message = "libcriu-py is not installed here: pip install -e ."
        raise Unavailable(message)
    return found


def take_snapshot(scenario: Scenario, directory: Path) -> Snapshot:
    """
    Make a snapshot of a scenario's program with the command.

    Args:
        scenario: What to snapshot.
        directory: Where; it must not exist.

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
            "--learn",
            "",
            str(scenario.program),
        ],
        env=environment(),
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
        str(manifest["mode"]),
        sum(path.stat().st_blocks * 512 for path in files),
        seconds,
    )


def conventional(scenario: Scenario) -> Variant:
    """
    Start the program as it is always started.

    Args:
        scenario: The program.

    """

    def start() -> Sample:
        argv = [sys.executable, str(scenario.program)]
        return measure(argv, env=environment(), expect=scenario.expect)

    return Variant("conventional", start)


def restored(scenario: Scenario, snapshot: Snapshot) -> Variant:
    """
    Start the program with ``libcriu-py run``.

    Args:
        scenario: The program.
        snapshot: Its snapshot.

    """
    # A conventional start in place of a restore would be measured as one.
    argv = [command(), "run", "--no-fallback", str(snapshot.directory)]

    def start() -> Sample:
        return measure(argv, env=environment(), expect=scenario.expect)

    return Variant("libcriu-py run", start)


def raw(scenario: Scenario, snapshot: Snapshot) -> Variant:
    """
    Restore the same images with the ``criu restore`` command.

    Args:
        scenario: The program.
        snapshot: Its snapshot.

    Raises:
        Unavailable: The snapshot needs a namespace that the command lacks.

    """
    require_plain(snapshot, "criu restore")
    argv = [find_criu(), "restore", "--unprivileged", "--shell-job", "--verbosity=1"]
    argv += ["--images-dir", str(snapshot.images)]
    argv += ["--work-dir", str(work_dir(snapshot)), "--log-file", "raw.log"]
    for fd, key in inherited(snapshot).items():
        argv += ["--inherit-fd", f"fd[{fd}]:{key}"]
    return Variant("criu restore", lambda: start_peer(argv, scenario, snapshot))


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
    return Variant("pycriu", lambda: start_peer(argv, scenario, snapshot, path))


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
    return {**fds, IMAGES_FD: snapshot.images_key}


def start_peer(
    argv: list[str],
    scenario: Scenario,
    snapshot: Snapshot,
    extra: dict[str, str] | None = None,
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
    for left in reversed(range(TRIES)):
        ours, theirs = send_request(request, [])
        images = os.open(snapshot.images, os.O_RDONLY | os.O_DIRECTORY)
        copies = [
            (0, SLOT_FDS["stdin"]),
            (1, SLOT_FDS["stdout"]),
            (2, SLOT_FDS["stderr"]),
            (theirs, SLOT_FDS["request"]),
            (images, IMAGES_FD),
        ]
        try:
            return measure(argv, env={**env, **settings, **(extra or {})}, copies=copies, expect=scenario.expect)
        except RunError:
            if left == 0:
                raise
            time.sleep(PAUSE)
        finally:
            for fd in (ours, theirs, images):
                os.close(fd)
    raise AssertionError  # the loop returns or raises
