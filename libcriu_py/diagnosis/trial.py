"""
The trial of a mode, a separate program that `modes.try_mode` starts: it dumps and restores a tiny process.

It prints one line of JSON: the error or null, and the seconds for dump and restore. If it times out, it ends whatever
it has started.
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
_TOKEN = "after-the-restore"  # noqa: S105 - no secret
_PR_SET_CHILD_SUBREAPER = 36


def main(mode: str, patience: float) -> int:
    """
    Try a mode.

    Args:
        mode: Its name, or "native".
        patience: The timeout, in seconds.

    Returns:
        The exit status, which is 0 even if the mode does not work.
    """
    told: dict[str, object] = {"error": None, "dump": None, "restore": None}
    # A criu that hangs is no child of the tiny process; this makes it a child of the trial.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    timed_out = threading.Event()

    def time_out() -> None:
        timed_out.set()  # first, because the end of the killed processes is noticed at once
        _kill_descendants()

    # Not SIGALRM, which would be passed on to the program.
    timer = threading.Timer(patience, time_out)
    timer.start()
    with tempfile.TemporaryDirectory(prefix="libcriu_py-doctor-") as directory:
        snapshot = os.path.join(directory, "snapshot")
        begun = time.monotonic()
        told["error"] = _dump(mode, snapshot, os.path.join(directory, "stderr"))
        told["dump"] = time.monotonic() - begun
        if told["error"] is None:
            begun = time.monotonic()
            told["error"] = _restore(mode, snapshot)
            told["restore"] = time.monotonic() - begun
        if timed_out.is_set():
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
    """End what the trial has left running after a failure."""
    while _kill_descendants():
        with contextlib.suppress(ChildProcessError):
            os.wait()


def _dump(mode: str, snapshot: str, errors: str) -> str | None:
    """Start the tiny process so that it can dump itself; return what went wrong, or None."""
    from libcriu_py.dump import spawn
    from libcriu_py.errors import CriuError
    from libcriu_py.program import interpreter

    saved = os.dup(2)
    fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 2)
    os.close(fd)
    argv = interpreter.command(_PROGRAM, snapshot)
    engine = "native" if mode == "native" else "criu"
    env = {**os.environ, "LIBCRIU_PY_ENGINE": engine}
    try:
        status = spawn.spawn_for_snapshot(argv, env=env, mode=None if engine == "native" else mode)
    except (CriuError, OSError) as error:
        return str(error)
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    if status == 0:
        return None
    with open(errors, encoding="utf-8", errors="replace") as file:
        return file.read().strip() or f"the program to be dumped ended with status {status}"


def _restore(mode: str, snapshot: str) -> str | None:
    """Restore it with another argument; return what went wrong, or None."""
    from libcriu_py import PIPE, restore
    from libcriu_py.errors import CriuError

    try:
        mode_of_criu = None if mode == "native" else mode
        with restore(snapshot, [_TOKEN], mode=mode_of_criu, stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
            output, errors = process.communicate()
    except (CriuError, OSError) as error:
        return str(error)
    if output.decode() == f"42 {_TOKEN}\n":
        return None
    return f"the restored process printed {output!r} and {errors!r}, and ended with status {process.returncode}"
