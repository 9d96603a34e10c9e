"""What getppid() says in a copy, which its launcher's parent decides, in each place that a copy can be in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.accounts import popen_as
from tests.system.conftest import MODES
from tests.system.csrc.test_launcher import Copies, make, read_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.conftest import Mode

TIMEOUT = 60
PROGRAM = """
import os, signal, sys, time
def orphaned(*_):
    os.write(1, b"%d\\n" % (os.getppid() == 1))
def wait():
    while os.getppid() != 1:
        time.sleep(0.01)
    os.write(1, b"orphaned\\n")
    sys.stdin.readline()
    sys.exit(3)
orphaned()
if sys.argv[1:] == ["wait"]:
    wait()
for line in sys.stdin:
    orphaned()
sys.exit(7)
"""
STARTER = """
import signal, subprocess, sys
process = subprocess.Popen(sys.argv[1:])
print(process.pid, flush=True)
signal.pause()
"""
"""What a launcher has for a parent; it is killed."""
ORPHAN = """
import os, sys, time
if os.fork():
    os._exit(0)
while os.getppid() != 1:
    time.sleep(0.001)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What starts a launcher whose parent is init, as systemd does."""


@pytest.fixture(scope="module", params=MODES)
def made(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[Copies]:
    """Yield one snapshot for each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield Copies(mode, make(mode, directory, PROGRAM))
    shutil.rmtree(directory)


@pytest.fixture
def copies(made: Copies) -> Iterator[Copies]:
    """Yield the snapshot, with its pid taken by a first copy: a second one is in a namespace, in every mode."""
    with made.start() as first:
        assert read_line(first) == "0"
        yield made
        assert first.communicate("x\n", TIMEOUT)[0] == "0\n"
        assert first.returncode == 7


def test_it_is_not_init(copies: Copies) -> None:
    """A program with a parent is no orphan; what it is told and how it ends is as ever."""
    done = copies.run(input="x\n")
    assert (done.returncode, done.stdout) == (7, "0\n0\n")


def test_it_is_init_from_the_start(copies: Copies) -> None:
    """A program that compares it with what it was first must never see another parent."""
    argv = [copies.mode.account.python, "-c", ORPHAN, *copies.command, "--no-fallback", copies.path]
    done = copies.mode.run(argv, env=copies.env, input="x\n")
    assert (done.returncode, done.stdout) == (0, "1\n1\n"), done.stderr


def test_it_becomes_init_when_the_parent_of_the_launcher_has_ended(copies: Copies) -> None:
    """Then, and not before; the program goes on, and is what the launcher stands for as before."""
    argv = [copies.mode.account.python, "-c", STARTER, *copies.command, "--no-fallback", copies.path, "--", "wait"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    starter = popen_as(copies.mode.account, argv, env=copies.env, **pipes)
    with starter:
        # A copy may be faster than who has started it.
        first, launcher = sorted(int(read_line(starter)) for _ in range(2))
        assert first == 0
        pidfd = os.pidfd_open(launcher)
        starter.kill()
        starter.wait(TIMEOUT)
        assert read_line(starter) == "orphaned"
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        assert starter.stdin is not None
        starter.stdin.write("x\n")
        starter.stdin.flush()
        assert starter.stdout is not None
        assert starter.stdout.read() == ""  # all that hold it have ended
    os.close(pidfd)
