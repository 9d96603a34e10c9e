"""A criu that dies, stops or does not end in the middle of a dump: the program goes on, and nothing is left."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.errors import TransportError
from tests.system.selfdump import write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

PROGRAM = """
import sys, threading
from libcriu_py import CriuError, checkpoint
threading.Thread(target=threading.Event().wait, daemon=True).start()
try:
    with checkpoint(then="continue"):
        pass
except CriuError as error:
    print(error)
print(sys.stdin.read(), threading.active_count())
"""
PLACES = ("root", "rootless-as-root")
"""Where criu is the package's child, and where it is its supervisor's."""


@pytest.fixture(params=PLACES)
def mode(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Mode:
    """Return each of these."""
    return mode_named(request.param)


def dump_by(mode: Mode, directory: Path, does: str, **variables: str) -> str:
    """Let a program dump itself by a criu that does something first; return what it printed."""
    criu = directory / "criu"
    real = mode.criu or mode.account.criu
    criu.write_text(f'#!/bin/bash\n[ "$1" = swrk ] && {{\n{textwrap.dedent(does)}\n}}\nexec {real} "$@"\n')
    criu.chmod(0o755)
    script = write_program(mode, directory, PROGRAM)
    command = [mode.account.python, "-m", "libcriu_py", "snapshot", "--self", "-o", directory / "snap", script]
    done = mode.run(command, env={"LIBCRIU_PY_CRIU": str(criu), **variables}, input="went on", timeout=60)
    assert "went on 2" in done.stdout, done.stdout + done.stderr
    assert (directory / "snap" / "manifest.json").exists() == (done.returncode == 0)
    return str(done.stdout)


def test_question_that_is_not_answered_is_given_up(own_account: Account, directory_of: Directories) -> None:
    """As that for its version after each dump."""
    criu = directory_of(own_account) / "criu"
    criu.write_text("#!/bin/bash\nsleep 1000; sleep 1000\n")
    criu.chmod(0o755)
    limited = Criu(criu)
    limited.answers_within = 0.5
    with pytest.raises(TransportError, match=r"it was ended after 0.5 s"):
        limited.version()


@pytest.mark.parametrize("signal", ["KILL", "TERM", "SEGV"])
def test_criu_that_dies_is_told(mode: Mode, directory_of: Directories, signal: str) -> None:
    """Also where it leaves a helper that holds its connection open, as criu does while it probes the kernel."""
    said = dump_by(mode, directory_of(mode.account), f"sleep 1000 &\nkill -{signal} $$")
    assert "it ended before it had answered" in said


def test_criu_that_does_not_end_is_ended(mode: Mode, directory_of: Directories) -> None:
    """With all that it has started, after the limit, which the message names."""
    said = dump_by(mode, directory_of(mode.account), "trap '' TERM; sleep 1000; sleep 1000", LIBCRIU_PY_CRIU_LIMIT="1")
    assert "it was ended after 1 s (LIBCRIU_PY_CRIU_LIMIT)" in said


def test_criu_that_is_stopped_is_continued(mode: Mode, directory_of: Directories) -> None:
    """Nobody needs it stopped, and it may hold the program: the snapshot is made."""
    does = "[ $(cat /proc/$PPID/comm) = lcp-watch ] && { kill -STOP $$; kill -STOP $$; }"
    said = dump_by(mode, directory_of(mode.account), does)
    assert "ended" not in said
