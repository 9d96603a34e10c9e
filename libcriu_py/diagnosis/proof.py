"""
The trial of a mode, a program of its own (`modes.prove` starts it): it dumps and restores a tiny process.

It prints one line of JSON: the error or null, and the seconds for dump and restore. After so many seconds it is given
up, and whatever it has started is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import tempfile
import threading
import time

_PROGRAM = """\
import sys
from libcriu_py import checkpoint
try:
    with checkpoint(sys.argv[1]):
        value = 6 * 7
except Exception as error:
    sys.stderr.write(str(error))
    sys.exit(1)
print(value, *sys.argv[1:])
"""
_TOKEN = "from-the-other-side"  # noqa: S105 - no secret
_SCRATCH_STDERR = "stderr"


_PR_SET_CHILD_SUBREAPER = 36


def main(mode: str, patience: float) -> int:
    """
    Try a mode.

    Args:
        mode: Its name.
        patience: How long to wait for its end, in seconds.

    Returns:
        The exit status: 0 also when the mode does not work.
    """
    told: dict[str, object] = {"error": None, "dump": None, "restore": None}
    # So that a criu that hangs, which is no child of its program, becomes one of ours.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    given_up = threading.Event()

    def give_up() -> None:
        given_up.set()  # first: the end of what is killed is seen at once
        _kill_descendants()

    # Not by SIGALRM, which is passed on to the program.
    timer = threading.Timer(patience, give_up)
    timer.start()
    with tempfile.TemporaryDirectory(prefix="libcriu_py-doctor-") as directory:
        snapshot = os.path.join(directory, "snapshot")
        begun = time.monotonic()
        told["error"] = _dump(mode, snapshot, os.path.join(directory, _SCRATCH_STDERR))
        told["dump"] = time.monotonic() - begun
        if told["error"] is None:
            begun = time.monotonic()
            told["error"] = _restore(mode, snapshot)
            told["restore"] = time.monotonic() - begun
        if given_up.is_set():
            told["error"] = f"a dump and restore did not end within {patience:g} seconds"
        timer.cancel()
        _end_descendants()
    print(json.dumps(told))  # noqa: T201 - this is a program
    return 0


def _kill_descendants() -> list[int]:
    from libcriu_py.linux import processes

    found = processes.processes()[1:]
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


def _end_descendants() -> None:
    """End what the trial has left running, which is something only after a failure."""
    while _kill_descendants():
        with contextlib.suppress(ChildProcessError):
            os.wait()


def _dump(mode: str, snapshot: str, errors: str) -> str | None:
    """Start the tiny process where it can dump itself; returns what went wrong."""
    from libcriu_py.dump import spawn
    from libcriu_py.errors import CriuError
    from libcriu_py.program import interpreter

    saved = os.dup(2)
    fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
    argv = interpreter.command(_PROGRAM, snapshot)
    try:
        status = spawn.spawn_for_snapshot(argv, env=os.environ, mode=mode)
    except (CriuError, OSError) as error:
        return str(error)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    if status == 0:
        return None
    with open(errors, encoding="utf-8", errors="replace") as file:
        return file.read().strip() or f"the program that was to be dumped ended with status {status}"


def _restore(mode: str, snapshot: str) -> str | None:
    """Restore it with another argument; returns what went wrong."""
    from libcriu_py import PIPE, restore
    from libcriu_py.errors import CriuError

    try:
        with restore(snapshot, [_TOKEN], mode=mode, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            output, errors = process.communicate()
    except (CriuError, OSError) as error:
        return str(error)
    if output.decode() == f"42 {_TOKEN}\n":
        return None
    return f"the restored process printed {output!r} and {errors!r}, and ended with status {process.returncode}"
