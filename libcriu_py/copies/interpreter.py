"""
Interpreters that are warm, for whatever takes the path of one: launch scripts, with snapshots in the user's cache.

    <cache>/libcriu_py/python/<key>/python     the launch script
                                   /snap       the snapshot
                                   /lock       held by the one who makes it
                                   /refused    why it was not made anew; not there if it was

The key is of all that decides what a new interpreter would be: another environment has another snapshot.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from libcriu_py.copies.launch_script import TITLE, write_launch_script
from libcriu_py.errors import CheckpointError, SnapshotError
from libcriu_py.program import interpreter, start_variables
from libcriu_py.settings import variable
from libcriu_py.snapshot import installed, launcher
from libcriu_py.snapshot.manifest import Snapshot
from libcriu_py.snapshot.record import FORMAT, PROTOCOL, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from libcriu_py.settings import Exit

_LONGEST = 4 << 20
_VARIABLES = (*start_variables.FIXED, *start_variables.OF_INTERPRETER, "LC_ALL", "LC_CTYPE", "LANG")


def executable(
    preload: Sequence[str] = (),
    *,
    exit: Exit = "normal",  # noqa: A002 - its name everywhere here
) -> str:
    """
    Return the path of a python that has imported modules already, for whatever takes the path of an interpreter.

    It takes Python's own command line, as the interpreter of this process does, with its options (docs/warm-python.md).
    Where no copy can be that, it is that interpreter. The snapshot is made if there is none that fits, in the user's
    cache, and by one process at a time.

    Args:
        preload: The modules.
        exit: How copies end; "fast" skips interpreter teardown (docs/exit.md).

    Returns:
        The path of a launch script.

    Raises:
        CheckpointError: The snapshot cannot be made, or a module not be imported.
        CriuError: The launcher was not built.
    """
    return os.path.join(_ready([*preload], exit), "python")


def for_workers(preload: Sequence[str]) -> str:
    """
    Return the path of an interpreter whose programs get the sys.path of this process, as workers of multiprocessing do.

    Its modules are found there too. Where one would be found elsewhere by it than the snapshot has it from, that is the
    usual interpreter.

    Args:
        preload: The modules.

    Raises:
        CheckpointError: The snapshot cannot be made, or a module not be imported.
        CriuError: The launcher was not built.
    """
    path = [entry for entry in sys.path if entry]
    place = _ready([*preload], "fast", path)
    if installed.hides(Snapshot.open(os.path.join(place, "snap")).launch, path):
        return sys.executable
    return os.path.join(place, "python")


def _ready(preload: list[str], ending: Exit, path: Sequence[str] = ()) -> str:
    """Return the directory of a snapshot that fits, and of its launch script."""
    python = behind(sys.executable)
    options = _options()
    place = os.path.join(cache(), _key(python, preload, options, ending, path))
    script, snapshot = os.path.join(place, "python"), os.path.join(place, "snap")
    if is_fit(snapshot) and os.access(script, os.X_OK):
        return place
    os.makedirs(place, mode=0o700, exist_ok=True)
    with locked(os.path.join(place, "lock")):
        if not is_fit(snapshot):
            make(snapshot, python, preload, options=options, exit=ending, path=path)
        write_launch_script(script, snapshot, fallback=[python], python="own")
    return place


def base() -> str | None:
    """Return the directory of the user's cache, as the launcher finds it (csrc/launcher/automatic.c, find_base)."""
    places = (
        (variable("LIBCRIU_PY_CACHE"), ""),
        (os.environ.get("XDG_CACHE_HOME"), "libcriu_py"),
        (os.environ.get("HOME"), ".cache/libcriu_py"),
    )
    # A relative path is none (the XDG Base Directory Specification).
    return next((os.path.join(value, below).rstrip("/") for value, below in places if value and value[0] == "/"), None)


def cache() -> str:
    """Return the directory of the user's snapshots of interpreters; it may not exist yet."""
    return os.path.join(base() or os.path.expanduser("~/.cache/libcriu_py"), "python")


def behind(path: str) -> str:
    """
    Return the interpreter that a launch script of `executable` stands for; any other path as it is.

    That of a shim starts the interpreter in its virtual environment, and has to be named so.
    """
    named, found = script_of(path)
    return found if named == "own" else path


def script_of(path: str) -> tuple[str, str]:
    """Return how a launch script has Python name itself, and the interpreter; nothing for any other file."""
    try:
        with open(path, "rb") as file:
            lines = os.fsdecode(file.read(_LONGEST)).split("\n")
    except OSError:
        return "", ""
    words = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    if not lines[0].startswith("#!") or TITLE not in lines[:3] or not {"python", "fallback"} <= words.keys():
        return "", ""
    return words["python"], words["fallback"].replace("\\\\", "\\")


def is_fit(snapshot: str) -> bool:
    """Return whether there is a snapshot that can be restored here, with this environment."""
    try:
        return not launcher.list_mismatches(snapshot)
    except SnapshotError:
        return False


def make(
    snapshot: str,
    python: str,
    preload: Sequence[str],
    *,
    options: Sequence[str] = (),
    exit: Exit = "normal",  # noqa: A002
    path: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> None:
    """
    Make the snapshot of an interpreter, instead of one that is there.

    Args:
        snapshot: Its directory.
        python: The interpreter, in which this package is to be found.
        preload: Modules to import.
        options: Options of Python that are in force.
        exit: How copies end.
        path: Where modules are found too.
        env: Variables that are to be others than here.

    Raises:
        CheckpointError: It cannot be made.
    """
    words = ["snapshot", f"--python={python}", "-o", snapshot, "--replace", "--exit", exit]
    words += [f"--preload={','.join(preload)}"] if preload else []
    code = "import sys\nfrom libcriu_py.cli import main\nsys.exit(main())"
    command = interpreter.command(code, *words, "--", *options, python=behind(sys.executable))
    done = subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, **(env or {}), "LIBCRIU_PY_AUTO": "0", "LIBCRIU_PY_PRELOAD_PATH": os.pathsep.join(path)},
    )
    if done.returncode != 0:
        why = done.stderr.strip().rpartition("no snapshot was made: ")[2]
        if "No module named 'libcriu_py'" in done.stderr:
            why = f"this package is not installed for it; install it: {python} -m pip install libcriu-py"
        message = f"the snapshot of {python} cannot be made: {why}"
        raise CheckpointError(message)


def renew(snapshot: str, python: str) -> None:
    """
    Make a snapshot anew as it was made, unless it is fit, or another process is at it.

    What fails is written to the file `refused` beside it, and the launcher leaves it alone for ten minutes
    (csrc/launcher/interpreter.c).

    Args:
        snapshot: Its directory.
        python: The interpreter.
    """
    place = os.path.dirname(snapshot)
    refused = os.path.join(place, "refused")
    with locked(os.path.join(place, "lock"), wait=False) as ours:
        if not ours or is_fit(snapshot) or os.path.exists(os.path.join(place, "state.json")):  # auto's, which does it
            return
        details = Snapshot.open(snapshot).details
        ways = {"options": details["options"], "exit": details["exit"], "path": details["preload_path"]}
        try:
            make(snapshot, python, details["preload"], **ways)
        except CheckpointError as error:
            with open(refused, "w", encoding="utf-8", errors="replace") as file:
                file.write(f"{error}\n")
        else:
            with suppress(FileNotFoundError):
                os.unlink(refused)


def _options() -> list[str]:
    """Return the options of this process's interpreter, as it would give them to others."""
    options: list[str] = getattr(subprocess, "_args_from_interpreter_flags")()  # noqa: B009 - mypy does not know it
    return options


def _key(python: str, preload: list[str], options: list[str], ending: str, path: Sequence[str]) -> str:
    """Return the name of a snapshot's directory."""
    env = {name: os.environ.get(name, "") for name in _VARIABLES}
    facts: list[Any] = [VERSION, FORMAT, PROTOCOL, python, sys.prefix, sys.version, preload, options, ending, env]
    facts += [*path, variable("LIBCRIU_PY_ENGINE"), os.uname().machine]
    return hashlib.sha256(json.dumps(facts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextmanager
def locked(path: str, *, wait: bool = True) -> Iterator[bool]:
    """Yield whether this process holds a lock during the block."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
