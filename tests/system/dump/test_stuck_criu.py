"""A criu that dies, stops or does not end in the middle of a dump: the program goes on, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.errors import TransportError
from tests.system.selfdump import write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.cli_command import Command
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
STOPS_PROGRAM = """#!/bin/bash
if [ "$(cat /proc/$PPID/comm)" = lcp-watch ]; then
    for pid in $(pgrep -f "{script}"); do
        [[ $(cat /proc/$pid/comm) == python* ]] && kill -STOP $pid && echo $pid >{script}.stopped
    done
fi
exec {criu} "$@"
"""
DIES = """
import os, signal
died = os.path.join(os.path.dirname(__file__), "died")
if not os.path.exists(died):
    open(died, "w").close()
    os.kill(os.getpid(), signal.SIGTRAP)
"""
SIGNALLED = """
import os, signal, threading
from libcriu_py import checkpoint
signals = {signal.SIGCONT, signal.SIGTSTP, signal.SIGUSR1}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
for number in (signal.SIGTSTP, signal.SIGUSR1):
    os.kill(os.getpid(), number)
signal.pthread_kill(threading.get_ident(), signal.SIGCONT)
os.kill(os.getpid(), signal.SIGCONT)
with checkpoint():
    pass
print(sorted(signal.sigpending()))
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


def test_program_that_is_stopped_in_its_dump_runs_in_copies(one: Command) -> None:
    """As one that is stopped by Ctrl-Z when criu freezes it: it is to be continued, and copies are not stopped."""
    criu, script, images = one.place / "criu", one.place / "program.py", one.place / "snap" / "images"
    criu.write_text(STOPS_PROGRAM.format(criu=one.mode.account.criu, script=script))
    criu.chmod(0o755)
    script.write_text("from libcriu_py import checkpoint\nwith checkpoint():\n    pass\nprint('ran')\n")
    command = [one.mode.account.python, script]
    env = {**os.environ, "LIBCRIU_PY_CRIU": str(criu), "LIBCRIU_PY_SNAPSHOT": str(one.place / "snap")}
    env["LIBCRIU_PY_ENGINE"] = "criu"
    with subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True) as program:
        deadline = time.monotonic() + 30
        while not (images / "stats-dump").exists():  # what criu writes last
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (one.place / "program.py.stopped").read_text() == f"{program.pid}\n"
        os.kill(program.pid, signal.SIGCONT)
    assert program.returncode == 0
    assert one.restored(one.place / "snap", timeout=20) == "ran\n"


def test_signals_of_job_control_are_not_for_copies(mode: Mode, directory_of: Directories) -> None:
    """A SIGCONT that comes in the dump is pending in it, and made criu refuse each copy; other signals stay."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    script.write_text(SIGNALLED)
    command = [mode.account.python, "-m", "libcriu_py", "snapshot", "--self", "-o", directory / "snap", script]
    done = mode.run(command, timeout=60)
    assert done.returncode == 0, done.stderr
    run = [mode.account.python, "-m", "libcriu_py", "run", "--no-fallback", directory / "snap"]
    assert mode.run(run, timeout=20).stdout == "[<Signals.SIGUSR1: 10>]\n"


def test_program_that_dies_with_criu_is_started_again(mode: Mode, directory_of: Directories) -> None:
    """Where nothing of it but imports has run: what criu has put into it may end it when criu is killed."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    (directory / "dies.py").write_text(DIES)
    script.write_text("import dies\nprint('ran')\n")
    command = [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap", script]
    done = mode.run(command, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "criu died in the dump, and the program with it; trying once more" in done.stderr
    (directory / "died").unlink()
    done = mode.run([*command[:4], "--self", *command[4:-2], directory / "other", script], timeout=60)
    assert "the program died of signal 5" in done.stderr


def test_question_that_is_not_answered_is_given_up(own_account: Account, directory_of: Directories) -> None:
    """As that for its version after each dump."""
    criu = directory_of(own_account) / "criu"
    criu.write_text("#!/bin/bash\nsleep 1000; sleep 1000\n")
    criu.chmod(0o755)
    limited = Criu(criu)
    limited.answers_within = 0.5
    with pytest.raises(TransportError, match=r"it was ended after 0.5 s"):
        limited.version()


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_criu_that_dies_is_told(mode: Mode, directory_of: Directories, name: str) -> None:
    """Also where it leaves a helper that holds its connection open, as criu does while it probes the kernel."""
    said = dump_by(mode, directory_of(mode.account), f"sleep 1000 &\nkill -{name} $$")
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
