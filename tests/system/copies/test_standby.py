"""A run that takes a copy from a standby pool is like one that restores: with both launchers, in each mode."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.system import standby
from tests.system.accounts import popen_as
from tests.system.cli_terminal import Terminal
from tests.system.conftest import MODES, Mode
from tests.system.csrc.test_launcher import launch, make, read_line
from tests.system.standby import TIMEOUT, Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Result = tuple[int, bytes, bytes]


class Runs(NamedTuple):
    """
    A pool, and a way to start what takes its copies.

    Attributes:
        mode: How restores are allowed, and who starts them.
        path: The snapshot.
        pool: The pool.
    """

    mode: Mode
    path: Path
    pool: Pool

    @property
    def command(self) -> list[str]:
        """What starts the program, up to its arguments."""
        return [*launch(self.mode.account), "--no-fallback", str(self.path), "--"]

    @property
    def env(self) -> dict[str, str]:
        """The variables that belong to the command."""
        return self.mode.env

    def start(self, *argv: str, **settings: Any) -> subprocess.Popen[Any]:
        """Start a command without a terminal, its streams pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**self.env, **settings.pop("env", {})}
        return popen_as(self.mode.account, argv, env=env, **{**pipes, "start_new_session": True, **settings})

    def run(self, *argv: str, data: bytes = b"", **settings: Any) -> Result:
        """Run a command to its end."""
        process = self.start(*argv, **settings)
        out, err = process.communicate(data, TIMEOUT)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def made(mode_named: Callable[[str], Mode]) -> Iterator[dict[str, tuple[Mode, Path]]]:
    """Yield a snapshot for each mode."""
    modes = {name: mode_named(name) for name in MODES}
    found = {name: (mode, make(mode, mode.account.directory(), standby.PROGRAM)) for name, mode in modes.items()}
    yield found
    for _, path in found.values():
        shutil.rmtree(path.parent)


@pytest.fixture
def own_made(made: dict[str, tuple[Mode, Path]]) -> tuple[Mode, Path]:
    """Return a snapshot of whoever runs the tests, in the first mode."""
    return made[MODES[0]]


@pytest.fixture(params=MODES)
def runs(request: pytest.FixtureRequest, made: dict[str, tuple[Mode, Path]]) -> Iterator[Runs]:
    """Yield a pool in each mode."""
    with Pool(*made[request.param], size=1) as pool:
        yield Runs(*made[request.param], pool)


@pytest.fixture
def own_runs(own_made: tuple[Mode, Path]) -> Iterator[Runs]:
    """Yield a pool in the first mode."""
    with Pool(*own_made, size=1) as pool:
        yield Runs(*own_made, pool)


# ---- as restored -----------------------------------------------------------


def scenes(start: str) -> list[tuple[str, bytes]]:
    """Return command lines for sh that start the program, with what they are given to read."""
    data = os.urandom(1 << 14) * 100
    ignoring = "exec env --ignore-signal=CHLD"
    return [
        (f"{start} report 'ä' \udcff -- ''", b""),
        (f"cd /; umask 027; trap '' HUP USR1; ODD=$(printf '\\377x') {ignoring} {start} report", b""),
        (f"ulimit -Sn 100; exec {start} report", b""),
        (f"ulimit -n 4000; exec {start} report", b""),
        (f"printf abc | {start} read /dev/fd/5 5<&0 </dev/null", b""),
        (f"exec {start} report 4</dev/null 5<. 9>/dev/null", b""),
        (f"exec {start} digest", data),
        (f"exec {start} digest </dev/null", b""),
        (f"printf abc >in; {start} digest <in >out; cat out; rm in out", b""),
        (f"{start} digest | cat", data),
        *[(f"exec {start} end {status}", b"") for status in (0, 1, 125, 255)],
        (f"exec {start} fail", b""),
        *[(f"exec {start} die {number}", b"") for number in (1, 6, 9, 10, 15)],
        *[(f"exec {start} streams {closed}", b"") for closed in ("0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-")],
    ]


def taken_by(pool: Pool, run: Callable[[], Result]) -> Result:
    """Return the result of a run that has taken a copy; a pool that was too slow on a busy machine is asked again."""
    for _ in range(5):
        served = pool.stock().served
        result = run()
        if pool.stock().served == served + 1:
            return result
    message = "the pool has given no copy"
    raise AssertionError(message)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", MODES)
def test_results_are_those_of_restores(made: dict[str, tuple[Mode, Path]], name: str) -> None:
    """What a program is given, says and ends with is the same, and each run has taken a copy."""
    mode, path = made[name]
    commands = scenes(shlex.join([*launch(mode.account), "--no-fallback", str(path), "--"]))

    def run(line: str, data: bytes) -> Result:
        settings: dict[str, Any] = {"input": data, "text": False, "start_new_session": True}
        done = mode.run(["/bin/sh", "-c", line], **settings)
        return done.returncode, done.stdout, done.stderr

    restored = [run(*command) for command in commands]
    with Pool(mode, path, size=1) as pool:
        taken = [taken_by(pool, partial(run, *command)) for command in commands]
    assert taken == restored
    assert {result[0] for result in taken} >= {0, 1, 125, 255, -9, -15}
    assert pool.complaints == ""


def test_copies_differ(runs: Runs) -> None:
    """Two copies have other random numbers."""
    found = []
    for _ in range(2):
        runs.pool.stock()
        found += runs.run(*runs.command, "numbers")[1].split()
    assert runs.pool.stock().served == 2
    assert len(set(found)) == 6


def test_variables_that_name_the_launcher_name_the_copy(runs: Runs) -> None:
    """Its own pid, whether it has one of its own namespace or not."""
    runs.pool.stock()
    execute = 'LISTEN_PID=$$ exec "$@"'
    assert runs.run("/bin/sh", "-c", execute, "sh", *runs.command, "named") == (0, b"True\n", b"")
    assert runs.pool.stock().served == 1


# ---- signals ---------------------------------------------------------------


def test_signals_are_passed_on(runs: Runs) -> None:
    """Each arrives, once, and the program's own end is the launcher's."""
    names = ["SIGUSR1", "SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM"]
    runs.pool.stock()
    with runs.start(*runs.command, "wait", *names, text=True) as process:
        assert read_line(process) == "ready"
        assert standby.children(process.pid) == set()  # it has not restored
        for name in names:
            process.send_signal(signal.Signals[name])
            assert read_line(process) == f"caught {name}"
        assert process.wait(TIMEOUT) == 5


def test_stop_and_continue(runs: Runs) -> None:
    """The launcher stops with its program, by the signal of Ctrl-Z too, and continues it."""
    runs.pool.stock()
    with runs.start(*runs.command, "echo", text=True) as process:
        assert read_line(process) == "ready"
        assert process.stdin is not None
        for number in (signal.SIGTSTP, signal.SIGSTOP):
            if number == signal.SIGSTOP:
                process.send_signal(signal.SIGCONT)
                process.stdin.write("first\n")
                process.stdin.flush()
                assert read_line(process) == "got first"
            process.send_signal(number)
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.send_signal(signal.SIGCONT)
        out, _ = process.communicate("second\n", TIMEOUT)
        assert (process.returncode, out) == (0, "got second\nover\n")


def test_killed_launcher_takes_the_program_along(runs: Runs) -> None:
    """SIGKILL cannot be passed on; the program ends all the same."""
    runs.pool.stock()
    with runs.start(*runs.command, "wait", "SIGTERM", text=True) as process:
        assert read_line(process) == "ready"
        process.kill()
        assert read_line(process) == ""  # the end of file comes when nobody holds the pipe any more


# ---- who gets none ---------------------------------------------------------


def test_more_runs_than_copies(runs: Runs) -> None:
    """Who finds none that waits restores."""
    runs.pool.stock()
    processes = [runs.start(*runs.command, "echo", text=True) for _ in range(4)]
    assert [read_line(process) for process in processes] == ["ready"] * 4
    for process in processes:
        out, err = process.communicate("x\n", TIMEOUT)
        assert (process.returncode, out, err) == (0, "got x\nover\n", "")
    assert 1 <= runs.pool.stock().served <= 4


OTHERS = {
    "priority": ["/usr/bin/nice", "-n", "3"],
    "policy": ["/usr/bin/chrt", "-b", "0"],
    "processors": ["/usr/bin/taskset", "-c", "0"],
    "privileges": ["/usr/bin/setpriv", "--no-new-privs"],
}
if os.geteuid() == 0:
    OTHERS |= {
        "namespace": ["/usr/bin/unshare", "--uts"],
        "groups": ["/usr/bin/setpriv", "--groups", "1"],
    }


@pytest.mark.parametrize("what", OTHERS)
def test_who_differs_restores(own_runs: Runs, what: str) -> None:
    """A launcher that is not as the pool is gets no copy, and restores."""
    stock = own_runs.pool.stock()
    assert own_runs.run(*OTHERS[what], *own_runs.command, "end", "3") == (3, b"", b"")
    assert own_runs.pool.stock() == stock


def test_limits(own_made: tuple[Mode, Path]) -> None:
    """A copy can lower its limits but not raise them: who has higher ones than the pool restores."""
    mode, path = own_made
    report = shlex.join([*launch(mode.account), "--no-fallback", str(path), "--", "report"])
    with Pool(mode, path, size=1, prefix=["/usr/bin/prlimit", "--nofile=5000"]) as pool:
        for hard, served in ((6000, 0), (5000, 1), (4000, 2)):
            pool.stock()
            done = mode.run(["/bin/sh", "-c", f"ulimit -n {hard}; exec {report}"], start_new_session=True)
            assert json.loads(done.stdout)[5] == [hard, hard]
            assert pool.stock().served == served


def test_other_mode_restores(own_runs: Runs) -> None:
    """Who asks for another mode restores; who asks for that of the pool, or for any, takes a copy."""
    mode, served = own_runs.mode.value, 0
    for asked in ("rootless", "auto", mode):
        own_runs.pool.stock()
        env = {"LIBCRIU_PY_MODE": asked}
        assert own_runs.run(*own_runs.command, "end", "3", env=env) == (3, b"", b"")
        served += asked in {"auto", mode}
        assert own_runs.pool.stock().served == served


def test_terminal(own_made: tuple[Mode, Path]) -> None:
    """A program in a terminal is restored there, also from a pipe, unless the pool is told otherwise."""
    mode, path = own_made
    start = shlex.join([*launch(mode.account), "--no-fallback", str(path), "--"])
    env = {**os.environ, **mode.env, "START": start}
    for allow, served in (([], 0), (["terminal"], 1)):
        with Pool(mode, path, size=1, allow=allow) as pool, Terminal.with_shell(env=env) as terminal:
            for line in ("$START numbers", "$START numbers </dev/null 2>&1 | cat", "$START end 4 <&- >&- 2>&-"):
                pool.stock()
                terminal.shell(f"{line}; echo status $?")
                terminal.expect(r"status \d\n")
            assert pool.stock().served == 2 * served


def test_ctrl_c_reaches_a_copy_without_the_terminal(own_made: tuple[Mode, Path]) -> None:
    """Where the pool is allowed to serve programs of a terminal, Ctrl-C and Ctrl-Z are passed on."""
    mode, path = own_made
    start = shlex.join([*launch(mode.account), "--no-fallback", str(path), "--"])
    env = {**os.environ, **mode.env, "START": start}
    with Pool(mode, path, size=1, allow=["terminal"]) as pool, Terminal.with_shell(env=env) as terminal:
        pool.stock()
        terminal.shell("mkfifo fifo; exec 3<>fifo; $START echo <fifo 2>&1 | cat")
        terminal.expect("ready\n")
        terminal.type("\x1a")
        terminal.expect("Stopped")
        terminal.shell("echo some >&3; fg")
        terminal.expect("got some\n")
        terminal.type("\x03")
        terminal.prompt()
        terminal.shell("echo status ${PIPESTATUS[*]}; rm fifo; exec 3>&-")
        terminal.expect("status 130")
        assert pool.stock().served == 1
