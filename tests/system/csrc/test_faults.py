"""A criu, or a supervisor, that is dead or does not go on ends a restore, and nothing of it is left."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py import CriuError, restore
from tests.faults import targets
from tests.system import standby
from tests.system.accounts import popen_as
from tests.system.conftest import CRIU_MODES, NATIVE, Mode
from tests.system.csrc.test_launcher import Copies, make, read_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OWN_CRIU = [name for name in CRIU_MODES if name != "capability"]
"""Modes in which any program can be criu, without file capabilities."""
TIMEOUT = 30
LIMIT = {"LIBCRIU_PY_CRIU_LIMIT": "0.7"}
PROGRAM = 'import sys; print("ran", flush=True); sys.stdin.readline()'
CRIU = """\
#!{python}
import os, signal, sys, time
criu = os.getpid()
if {delay} and os.fork() == 0:
    if os.fork() == 0:
        os.closerange(0, 1000)
        time.sleep({delay})
        os.kill(criu, signal.{name})
    os._exit(0)
if not {delay}:
    os.kill(criu, signal.{name})
else:
    os.wait()
os.execv("{criu}", ["criu", *sys.argv[1:]])
"""


@pytest.fixture(scope="module", params=OWN_CRIU)
def copies(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[Copies]:
    """Yield a snapshot for each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield Copies(mode, make(mode, directory, PROGRAM))
    shutil.rmtree(directory)


def criu_that(copies: Copies, name: str, delay: float = 0) -> dict[str, str]:
    """Return the variables for a criu that gets a signal at its start, or so many seconds later."""
    path = copies.path.parent / "criu"
    account = copies.mode.account
    path.write_text(CRIU.format(python=account.python, name=name, delay=delay, criu=account.criu))
    account.give(path)
    path.chmod(0o755)
    return {**LIMIT, "LIBCRIU_PY_CRIU": str(path)}


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL"])
def test_criu_ends_a_restore(copies: Copies, name: str) -> None:
    """One sentence says why, and the conventional start does the work."""
    env = criu_that(copies, name)
    done = copies.run(options=(), env=env, input="x\n", timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (0, "ran\n")
    why = "criu did not restore it within 0.7 s (LIBCRIU_PY_CRIU_LIMIT), and was ended"
    if name == "SIGKILL":
        why = "criu was ended by signal SIGKILL before it had restored it"
    assert done.stderr.endswith(
        f"libcriu-py: starting conventionally: {why}\n"
    )  # libcriu itself may say something before


@pytest.mark.parametrize("name", ["SIGSTOP", "SIGKILL"])
def test_criu_in_the_middle(copies: Copies, name: str) -> None:
    """Whenever it is hit, the program runs once, restored or not, and nothing is left of a first try."""
    for delay in range(1, 12):
        env = criu_that(copies, name, 0.002 * delay)
        done = copies.run(options=(), env=env, input="x\n", timeout=TIMEOUT)
        assert done.stdout == "ran\n" or (done.returncode, done.stdout) == (125, ""), done.stderr


def test_killed_supervisor_or_launcher(copies: Copies) -> None:
    """Neither of them leaves what criu has made."""
    for whose in ("supervisor", "launcher"):
        with start_and_stop(copies) as process:
            below = standby.descendants(process.pid)
            victim = process.pid if whose == "launcher" else min(standby.children(process.pid))
            os.kill(victim, signal.SIGKILL)
            _, complaint = process.communicate(timeout=TIMEOUT)
        assert process.returncode == (-signal.SIGKILL if whose == "launcher" else 125)
        if whose == "supervisor":
            assert "the supervisor of the restore ended before it had told of a copy" in complaint
        await_ends(below)


def kill_supervisor(launcher: int) -> None:
    """Kill the supervisor of a launcher once it has told of the copy: then it closes its streams."""
    (supervisor,) = standby.children(launcher)
    deadline = time.monotonic() + TIMEOUT
    while Path(f"/proc/{supervisor}/fd/1").exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(supervisor, signal.SIGKILL)


def await_ends(pids: set[int]) -> None:
    """Wait until none of these processes is left."""
    deadline = time.monotonic() + TIMEOUT
    for pid in pids:
        while standby.name_of(pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert standby.name_of(pid) is None


def start_and_stop(copies: Copies) -> subprocess.Popen[str]:
    """Start a copy whose criu stops, as late as may be: it may have restored the program before."""
    for delay in (0.004, 0.003, 0.002, 0.001, 0):
        env = {**copies.env, **criu_that(copies, "SIGSTOP", delay), "LIBCRIU_PY_CRIU_LIMIT": "20"}
        process = copies.start(env=env, stderr=subprocess.PIPE)
        assert process.stdout is not None
        while not select.select([process.stdout], [], [], 0.01)[0]:
            if any(map(is_stopped, standby.descendants(process.pid))):
                return process
        with process:
            assert process.communicate("x\n", TIMEOUT)[0] == "ran\n"
    message = "no criu was stopped"
    raise AssertionError(message)


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped."""
    with (
        contextlib.suppress(FileNotFoundError, ProcessLookupError),
        open(f"/proc/{pid}/stat", encoding="ascii") as file,
    ):
        return file.read().rpartition(")")[2].split()[0] == "T"
    return False


def test_supervisor_killed_as_the_program_begins(copies: Copies) -> None:
    """A copy that has not begun by then never does: the program is started once, or not at all."""
    zone = copies.path.parent / "zone"
    os.mkfifo(zone)
    copies.mode.account.give(zone)
    command = [*copies.command, copies.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with popen_as(copies.mode.account, command, env={**copies.env, "TZ": f":{zone}"}, **pipes) as process:
        try:
            held = os.open(zone, os.O_WRONLY)  # as soon as the copy reads its time zone, its last step but one
            kill_supervisor(process.pid)
        finally:
            zone.unlink()
        assert read_line(process) == "ran"  # the conventional start
        os.close(held)  # now the copy would begin
        said, why = process.communicate("x\nx\n", TIMEOUT)
    assert (process.returncode, said) == (0, "")
    assert "the restored process ended by signal SIGKILL before the program could go on" in why


def test_supervisor_killed_when_the_program_has_begun(copies: Copies) -> None:
    """The program ends with it, as what is left of it could not be waited for."""
    with copies.start(stderr=subprocess.PIPE) as process:
        assert read_line(process) == "ran"
        below = standby.descendants(process.pid)
        kill_supervisor(process.pid)
        assert process.communicate(timeout=TIMEOUT) == ("", "")
    assert process.returncode == -signal.SIGKILL
    await_ends(below)


def test_launcher_killed_at_each_call(copies: Copies) -> None:
    """It leaves neither processes nor files."""
    trace = ["strace", "-D", "-qq", "-o"]
    command = [*copies.command, copies.path]
    log = copies.path.parent / "log"
    assert copies.mode.run([*trace, log, *command], env=copies.env, input="x\n").returncode == 0
    calls = targets.calls(log.read_text())
    for call in targets.spread(calls, 40):
        copies.mode.run([*trace, "/dev/null", *call.injection(signal.SIGKILL), *command], env=copies.env, input="x\n")
        await_nothing_left(copies)


@pytest.mark.parametrize("call", [("mkdir", 83), ("unlinkat", 263), ("rmdir", 84)])
def test_supervisor_killed_while_it_makes_or_removes_files(copies: Copies, call: tuple[str, int]) -> None:
    """The launcher removes them."""
    name, number = call
    trace = ["strace", "-D", "-qq", "-f", "--detach-on=execve", "-o", "/dev/null", "-e", f"trace={name}"]
    for moment in ("enter", "exit"):
        delay = ["-e", f"inject={name}:delay_{moment}=1s:when=1"]
        command = [*trace, *delay, *copies.command, "--no-fallback", copies.path]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with popen_as(copies.mode.account, command, env=copies.env, **pipes) as process:
            deadline = time.monotonic() + TIMEOUT
            while not any(calls_now(pid) == number for pid in standby.descendants(process.pid)):
                assert time.monotonic() < deadline
            (supervisor,) = standby.children(process.pid)
            os.kill(supervisor, signal.SIGKILL)
            process.communicate(timeout=TIMEOUT)
        assert process.returncode == 125
        await_nothing_left(copies)


def calls_now(pid: int) -> int:
    """Return the number of the system call that a process is in; -1 if in none."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"/proc/{pid}/syscall").read_text(encoding="ascii").split()[0])
    return -1


def await_nothing_left(copies: Copies) -> None:
    """Wait until no process and no directory of a restore is left."""
    scratch = Path(f"/dev/shm/libcriu_py-{copies.mode.account.uid}")
    deadline = time.monotonic() + TIMEOUT
    while left := [*scratch.glob("work-*"), *standby.named("lcp-supervisor", "lcp-parent", "criu")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.parametrize("copies", [*OWN_CRIU, NATIVE], indirect=True)
def test_no_file_in_place_of_one(copies: Copies) -> None:
    """A FIFO in place of an image, of a plan or of memory is refused, and nobody waits for who would write to it."""
    is_native = copies.mode.name == NATIVE
    for name in ("memory.img", "plan" if is_native else f"images/core-{first_pid(copies.path)}.img"):
        path = copies.path / name
        if not path.exists():
            continue
        kept = path.with_name("kept")
        path.rename(kept)
        os.mkfifo(path)
        copies.mode.account.give(path)
        try:
            done = copies.run(timeout=TIMEOUT)
            assert (done.returncode, done.stdout) == (126, "")
            assert str(path) in done.stderr
        finally:
            kept.rename(path)


def first_pid(snapshot: Path) -> str:
    """Return the pid of a snapshot's first image."""
    return min(path.stem.split("-")[1] for path in (snapshot / "images").glob("core-*.img"))


def test_restore_from_python(copies: Copies) -> None:
    """It raises the reason."""
    if not copies.mode.account.is_self:
        return
    variables = {**copies.env, **criu_that(copies, "SIGSTOP")}
    kept = dict(os.environ)
    os.environ.update(variables)
    try:
        with pytest.raises(CriuError, match="did not restore it within"):
            restore(copies.path)
    finally:
        os.environ.clear()
        os.environ.update(kept)


def test_limit_that_is_kept(copies: Copies) -> None:
    """A restore in time knows nothing of it."""
    with copies.start(env={**copies.env, **LIMIT}) as process:
        assert read_line(process) == "ran"
        process.communicate("x\n", TIMEOUT)
    assert process.returncode == 0
