"""Checkpoints that are asked for from outside."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.accounts import popen_as
from tests.system.conftest import IN_PLACE
from tests.system.selfdump import SelfDump, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

PROGRAM = """
import os, signal, sys, threading
from libcriu_py import allow_checkpoint, before_checkpoint, after_restore

ready = threading.Event()
restored = []
def fail():
    if os.path.exists(sys.argv[1] + "/fail"):
        raise OSError("not now")
before_checkpoint(fail)
after_restore(ready.set)
with allow_checkpoint(sys.argv[1] + "/snap", then=sys.argv[2]):
    print("ready", flush=True)
    while not ready.wait(1000) or len(sys.argv) < 4:
        ready.clear()
if "hang up" in sys.argv:
    os.kill(os.getpid(), signal.SIGHUP)
print("goes on in", threading.current_thread().name, sys.argv[3:], flush=True)
"""


def test_checkpoint_from_outside(mode: Mode, directory_of: Directories) -> None:
    """A failure is told and the program goes on; then its checkpoint is taken, and copies go on from there."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, PROGRAM)
    command = [mode.account.python, "-m", "libcriu_py"]
    start = [*command, "snapshot", "--self", "-o", directory / "snap", script, directory, "exit"]
    with popen_as(mode.account, start, env=mode.env, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
        pid = _program(starter.pid)
        (directory / "fail").touch()
        failed = mode.run([*command, "trigger", pid])
        assert failed.returncode == 1
        assert f"process {pid} took no checkpoint: HookError: before-checkpoint hook" in failed.stderr
        assert "not now" in failed.stderr
        (directory / "fail").unlink()
        taken = mode.run([*command, "trigger", pid])
        assert taken.stdout == f"snapshot: {directory / 'snap'}\n", taken.stderr
        assert starter.wait() == 0
    copy = SelfDump(mode, directory / "snap", script).run(directory.as_posix(), "exit", "argument")
    assert copy.stdout == "goes on in MainThread ['argument']\n", copy.stderr
    # Like nohup; its checkpoint was taken in a thread, where Python cannot ignore a signal.
    argv = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command, "run", "--no-fallback", directory / "snap", "--"]
    ignoring = mode.run([*argv, directory, "exit", "hang up"])
    assert ignoring.stdout == "goes on in MainThread ['hang up']\n", ignoring.stderr


def _program(pid: int) -> int:
    """Return the program that runs below a process: the last of the line of its only children."""
    while True:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            children = file.read().split()
        if not children:
            return pid
        (child,) = children
        pid = int(child)


@pytest.mark.parametrize("allowed_as", IN_PLACE)
def test_original_goes_on(mode_named: Callable[[str], Mode], directory_of: Directories, allowed_as: str) -> None:
    """One that is to go on can be asked again, for other directories too."""
    mode = mode_named(allowed_as)
    directory = directory_of(mode.account)
    script = write_program(mode, directory, PROGRAM)
    command = [mode.account.python, "-m", "libcriu_py", "trigger"]
    argv = [mode.account.python, script, directory, "continue"]
    options: dict[str, Any] = {"env": mode.env, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with popen_as(mode.account, argv, **options) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        for name in ("one", "two"):
            taken = mode.run([*command, program.pid, "-o", directory / name])
            assert taken.stdout == f"snapshot: {directory / name}\n", taken.stderr
            assert (directory / name / "manifest.json").exists()
        program.kill()


def test_who_may_not_be_asked(mode: Mode) -> None:
    """A process that cannot be made to take one, or that is not there, is told."""
    command = [mode.account.python, "-m", "libcriu_py", "trigger"]
    with popen_as(mode.account, ["/bin/sleep", "1000"]) as other:
        refused = mode.run([*command, other.pid])
        other.kill()
    assert refused.returncode == 1
    assert f"process {other.pid} runs " in refused.stderr
    assert "/sleep, which is no Python" in refused.stderr
    gone = mode.run([*command, other.pid])
    assert (gone.returncode, gone.stderr) == (1, "libcriu-py: No such process\n")


OTHER = "import sys, time\nprint('ready', flush=True)\nwhile True:\n    time.sleep(0.01)\n"


def test_program_that_knows_nothing_of_it(mode: Mode, directory_of: Directories) -> None:
    """From Python 3.14 on it is saved, and goes on; before, it is named as what it runs."""
    directory = directory_of(mode.account)
    command = [mode.account.python, "-m", "libcriu_py", "trigger", "-o", directory / "snap"]
    options: dict[str, Any] = {"env": mode.env, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with popen_as(mode.account, [mode.account.python, "-c", OTHER], **options) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        asked = mode.run([*command, program.pid])
        assert program.poll() is None
        program.kill()
    version = mode.run([mode.account.python, "-c", "import sys; print(sys.version_info.minor)"]).stdout.strip()
    if int(version) < 14:
        assert f"runs Python 3.{version}, which takes no scripts from outside (3.14 does)" in asked.stderr
    elif mode.name != "rootless":
        assert asked.stdout == f"snapshot: {directory / 'snap'}\n", asked.stderr
