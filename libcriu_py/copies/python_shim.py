"""
The `python` of a directory or virtual environment as a launch script, which starts copies of a warm interpreter.

    DIR/python                 the launch script; so are DIR/python3 and others that were links to the same interpreter
    DIR/.libcriu-py/snap       the snapshot
                   /was/NAME   the links that were there before
                   /lock, refused: see interpreter.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from libcriu_py.copies import interpreter
from libcriu_py.copies.launch_script import write_launch_script
from libcriu_py.errors import CheckpointError, SnapshotError
from libcriu_py.snapshot import launcher
from libcriu_py.snapshot.manifest import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.settings import Exit

NAME = "python"
_HIDDEN = ".libcriu-py"
_ASK = "import sys, os; print([sys.version, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.path[1:], os.__file__])"
"""What an interpreter answers alike by whatever name it is started, if it can be started by that."""


class Shim(NamedTuple):
    """A directory whose `python` is a launch script."""

    directory: str
    interpreter: str
    """The real one."""
    names: list[str]
    preload: list[str]
    exit: Exit
    problem: str
    """Why no copies are started at present; empty if they are."""


def install(
    into: str,
    preload: Sequence[str],
    *,
    python: str | None = None,
    exit: Exit | None = None,  # noqa: A002 - its name everywhere here
) -> Shim:
    """
    Make the `python` of a directory warm, or make its snapshot anew.

    Args:
        into: The directory, or a virtual environment.
        preload: The modules that copies have; none for those that the snapshot there has.
        python: The interpreter, where the directory has none of its own; default: the one of this process.
        exit: How copies end; None for how those of the snapshot there do, else normally.

    Returns:
        What there is now.

    Raises:
        CheckpointError: The snapshot cannot be made; the interpreter is as before.
        SnapshotError: The directory's python cannot be replaced.
    """
    directory = _directory(into)
    script, hidden = os.path.join(directory, NAME), os.path.join(directory, _HIDDEN)
    before = find(directory)
    is_new = before is None
    try:
        if before is None:
            _replace(directory, _real(directory, python))
            before = Shim(directory, script, [], [], "normal", "")
        snapshot = os.path.join(hidden, "snap")
        interpreter.make(snapshot, script, preload or before.preload, exit=exit or before.exit)
    except BaseException:
        if is_new:
            remove(directory)
        raise
    made = find(directory)
    if made is None:
        message = f"{script} has been replaced meanwhile"
        raise CheckpointError(message)
    return made


def _replace(directory: str, real: str) -> None:
    """Put the launch script in the place of the interpreter, whose links are kept."""
    script, was = os.path.join(directory, NAME), os.path.join(directory, _HIDDEN, "was")
    os.makedirs(was, mode=0o700, exist_ok=True)
    expected = _answer(script if os.path.exists(script) else real)
    names = _names(directory, real)
    for name in names:
        link, kept = os.path.join(directory, name), os.path.join(was, name)
        if os.path.islink(link) and not os.path.lexists(kept):
            os.symlink(os.readlink(link), kept)
    snapshot = os.path.join(directory, _HIDDEN, "snap")
    write_launch_script(script, snapshot, fallback=[real], python="given")
    finds_itself = _answer(script) == expected  # not where that takes its own path
    for name in names:  # no links: Python follows those of its own name
        python: Literal["given", "own"] = "given" if finds_itself else "own"
        write_launch_script(os.path.join(directory, name), snapshot, fallback=[real], python=python)


def remove(into: str) -> bool:
    """
    Put back what was there before.

    Args:
        into: The directory, or a virtual environment.

    Returns:
        Whether there was a launch script.
    """
    directory = _directory(into)
    hidden = os.path.join(directory, _HIDDEN)
    shim = find(directory)
    for name in reversed(shim.names if shim is not None else []):
        path, kept = os.path.join(directory, name), os.path.join(hidden, "was", name)
        if os.path.lexists(kept):
            os.replace(kept, path)
        else:
            os.unlink(path)
    shutil.rmtree(hidden, ignore_errors=True)
    return shim is not None


def find(into: str) -> Shim | None:
    """
    Return what is there; None if the directory's `python` is no launch script.

    Args:
        into: The directory, or a virtual environment.
    """
    directory = _directory(into)
    script, snapshot = os.path.join(directory, NAME), os.path.join(directory, _HIDDEN, "snap")
    _, real = interpreter.script_of(script)
    if not real:
        return None
    paths = {name: os.path.join(directory, name) for name in _candidates(directory)}
    names = [name for name, path in paths.items() if interpreter.script_of(path)[1] == real]
    details: Mapping[str, Any] = {}
    try:
        details = Snapshot.open(snapshot).details
        problem = "; ".join(launcher.list_mismatches(snapshot))
    except SnapshotError as error:
        problem = str(error)
    return Shim(directory, real, names, [*details.get("preload", ())], details.get("exit", "normal"), problem)


def _directory(into: str) -> str:
    """Return the directory of the interpreter: that of a virtual environment is below it."""
    directory = os.path.abspath(into)
    return os.path.join(directory, "bin") if os.path.isfile(os.path.join(directory, "pyvenv.cfg")) else directory


def _candidates(directory: str) -> list[str]:
    """Return the names that are an interpreter's, `python` first."""
    found = [name for name in os.listdir(directory) if name.startswith("python3.") and name[8:].isdigit()]
    return [NAME, "python3", *sorted(found)]


def _names(directory: str, real: str) -> list[str]:
    """
    Return the names to replace: those that are links to the interpreter, or not there.

    Raises:
        SnapshotError: `python` is another interpreter, or no link.
    """
    paths = {name: os.path.join(directory, name) for name in _candidates(directory)}
    if os.path.lexists(paths[NAME]) and not os.path.islink(paths[NAME]):
        message = f"{paths[NAME]} is the interpreter itself, and no link to it; a virtual environment of it has links"
        raise SnapshotError(message)
    ours = os.path.realpath(real)
    return [
        name
        for name, path in paths.items()
        if not os.path.lexists(path) or (os.path.islink(path) and (name == NAME or os.path.realpath(path) == ours))
    ]


def _real(directory: str, python: str | None) -> str:
    """
    Return the interpreter to start.

    Raises:
        SnapshotError: There is none, or another than the one that is asked for.
    """
    own = next(filter(os.path.exists, (os.path.join(directory, name) for name in (NAME, "python3"))), None)
    if own is None:
        return os.path.abspath(python) if python else interpreter.behind(sys.executable)
    if python and os.path.realpath(python) != os.path.realpath(own):
        message = f"{own} is there already, and is not {python}; choose another directory"
        raise SnapshotError(message)
    return os.path.realpath(own)


def _answer(python: str) -> str:
    """
    Return what an interpreter says of itself.

    Raises:
        SnapshotError: It cannot be started.
    """
    env = {**os.environ, "LIBCRIU_PY_AUTO": "0"}
    try:
        done = subprocess.run([python, "-c", _ASK], check=False, capture_output=True, text=True, env=env)
    except OSError as error:
        message = f"{python} cannot be started: {error.strerror}"
        raise SnapshotError(message) from None
    return done.stdout or done.stderr
