"""What a restored process is given, in each mode."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.snapshots import reseal
from tests.system import standby
from tests.system.accounts import popen_as
from tests.system.conftest import MODES, Mode, by_criu
from tests.system.selfdump import PLAIN, SelfDump, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account

TIMEOUT = 60


@pytest.fixture(scope="module", params=MODES)
def plain(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[SelfDump]:
    """One snapshot of the program that reports, for each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield take(mode, directory, PLAIN, "original")
    shutil.rmtree(directory)


def test_copies_have_arguments_of_their_own(plain: SelfDump) -> None:
    """Three copies of one snapshot, each with its own arguments and the program's exit status."""
    for args in ([], ["one"], ["a b", "", "é"]):
        done = plain.run(*args)
        assert done.returncode == 10, done.stderr
        report = json.loads(done.stdout)
        assert report["argv"] == [arg.encode().hex() for arg in args]
        assert report["orig_argv"] == report["argv"]
        assert report["outcome"] == "restored"
        assert report["downtime"] > 0


def test_ten_thousand_arguments(plain: SelfDump) -> None:
    """As many arguments as a shell's wildcard may give."""
    args = [f"argument-{number}" for number in range(10_000)]
    assert plain.report(*args)["argv"] == [arg.encode().hex() for arg in args]


def test_a_megabyte_of_environment(plain: SelfDump) -> None:
    """Ten thousand variables, one megabyte in all, are in place of those of the dump."""
    env = {f"VARIABLE_{number}": "x" * 85 for number in range(10_000)}
    report = plain.report(env=env)["env"]
    assert sum(len(name) + len(value) for name, value in report.items()) // 2 > 900_000
    assert all(report[name.encode().hex()] == value.encode().hex() for name, value in env.items())
    assert b"LIBCRIU_PY_SNAPSHOT".hex() not in report


def test_bytes_that_are_not_text(plain: SelfDump) -> None:
    """Every byte but null survives in arguments and environment."""
    strange = bytes(range(1, 256))
    report = plain.report(os.fsdecode(strange), env={"STRANGE": os.fsdecode(strange)})
    assert report["argv"] == [strange.hex()]
    assert report["env"][b"STRANGE".hex()] == strange.hex()


def test_directory_umask_and_stdin(plain: SelfDump) -> None:
    """Working directory, umask and stdin are those of the restoring side."""
    where = plain.path.parent
    report = plain.report(cwd=where, umask=0o26, input="text for stdin")
    assert report["cwd"] == str(where)
    assert report["umask"] == 0o26
    assert report["stdin"] == "text for stdin"


def test_c_environment_is_replaced(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """getenv() of C and child processes see the new environment, and nothing of the old one."""
    code = """
    import ctypes, os, subprocess
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    print(getenv(b"NEW"), getenv(b"OLD"))
    os.environ["LATER"] = "3"
    print(getenv(b"LATER"))
    print(subprocess.run(["env"], capture_output=True, text=True, check=True).stdout)
    """
    dump = take(mode, directory_of(mode.account), code, env={"OLD": "1"})
    done = dump.run(env={"NEW": "2"})
    assert done.stdout.startswith("b'2' None\nb'3'\n"), done.stderr
    assert "\nNEW=2\n" in done.stdout
    assert "OLD=1" not in done.stdout


def run_on_read_only_mount(mode: Mode, path: Path, command: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command as the mode's account in a mount namespace where `path` is read-only."""
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && ! touch "$1/x" 2>/dev/null && shift && exec "$@"'
    )
    account = mode.account
    change: list[str] = []
    enter = ["unshare", "--mount"]
    if account.is_self and account.uid:
        enter += ["--user", "--map-current-user", "--keep-caps"]
    elif account.uid:
        change = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    env = {**account.environment(), **mode.env}
    argv = [*enter, "sh", "-c", script, "sh", str(path), *change, *map(str, command)]
    return subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=60)


def test_snapshot_elsewhere(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A snapshot that was moved, copied or lies on a read-only mount is restored."""
    directory = directory_of(mode.account)
    dump = take(mode, directory)
    moved, copied = directory / "moved", directory / "copied"
    dump.path.rename(moved)
    assert dump._replace(path=moved).report("x")["argv"] == [b"x".hex()]
    mode.run(["cp", "-a", moved, copied], check=True)
    mode.run(["rm", "-r", moved], check=True)
    assert dump._replace(path=copied).report("x")["argv"] == [b"x".hex()]
    done = run_on_read_only_mount(
        mode, copied, [mode.account.python, "-m", "libcriu_py", "run", "--no-fallback", copied, "--", "x"]
    )
    assert json.loads(done.stdout or "{}").get("argv") == [b"x".hex()], done.stderr


def test_closed_stdio_is_closed(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """Streams that the restoring side has closed are None in the restored process too."""
    code = """
    import os, sys
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    with open(sys.argv[1], "w") as file:
        print(sys.stdin, sys.stderr, sys.stdout is None, file=file)
    """
    directory = directory_of(mode.account)
    dump = take(mode, directory, code)
    out = directory / "out"
    line = '"$@" <&- 2>&-'
    command = [mode.account.python, "-m", "libcriu_py", "run", "--no-fallback", dump.path, "--", out]
    done = mode.run(["sh", "-c", line, "sh", *command])
    assert done.returncode == 0
    assert out.read_text() == "None None False\n"


def test_streams_keep_their_identity(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A logging handler made before the dump writes to the restoring side's stderr; stdin drops what it had read."""
    code = """
    import logging, sys
    from libcriu_py import checkpoint
    logging.basicConfig(format="%(message)s")
    first = sys.stdin.readline()
    with checkpoint():
        pass
    logging.warning("logged")
    print(first.strip(), sys.stdin.read().strip(), sys.stdout.encoding)
    """
    dump = take(mode, directory_of(mode.account), code, input="first\nsecond\n")
    done = dump.run(input="third\n", env={"PYTHONIOENCODING": "latin-1"})
    assert (done.stdout, done.stderr) == ("first third iso8859-1\n", "logged\n")


def test_new_main(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A copy can run another main program, with the modules of the warm-up loaded."""
    directory = directory_of(mode.account)
    script = directory / "other.py"
    script.write_text('import sys\nprint(__name__, "decimal" in sys.modules, sys.argv)\n')
    mode.account.give(script)
    snapshot = directory / "snap"
    python = mode.account.python
    command = [python, "-m", "libcriu_py", "snapshot", "-o", snapshot, "--preload", "decimal"]
    mode.run(command, check=True)
    done = mode.run([python, "-m", "libcriu_py", "run", "--no-fallback", snapshot, script, "1"])
    assert done.stdout == f"__main__ True ['{script}', '1']\n", done.stderr


def test_process_title_is_the_new_command_line(plain: SelfDump) -> None:
    """`ps` shows the arguments of the copy, not those of the dump."""
    done = plain.call(
        """
        import subprocess, sys
        from libcriu_py import PIPE, restore
        with restore(sys.argv[1], ["shown-in-ps"], stdin=PIPE, stdout=PIPE, wait_ready=True) as process:
            with open(f"/proc/{process.pid}/cmdline", "rb") as file:
                print(file.read())
            process.communicate()
        """
    )
    assert "shown-in-ps" in done.stdout
    assert "original" not in done.stdout


def test_resource_limits_are_those_of_the_caller(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A limit that the restoring shell has set holds in the copy."""
    code = """
    import resource
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """
    dump = take(mode, directory_of(mode.account), code)
    command = [mode.account.python, "-m", "libcriu_py", "run", "--no-fallback", str(dump.path)]
    done = mode.run(["sh", "-c", 'ulimit -Sn 123 && exec "$@"', "sh", *command])
    assert done.stdout == "123\n", done.stderr


def test_ignored_signals_stay_ignored(plain: SelfDump) -> None:
    """A copy under nohup ignores SIGHUP."""
    code = """
    import os, signal, sys
    from libcriu_py import PIPE, restore
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with restore(sys.argv[1], stdin=PIPE, stdout=PIPE, wait_ready=True) as process:
        process.send_signal(signal.SIGHUP)
        print(process.communicate(b"still there")[0].decode())
        assert process.returncode == 10
    """
    assert "still there" in plain.call(code).stdout


def test_caller_that_ignores_the_ends_of_children(plain: SelfDump) -> None:
    """It still gets the status, which comes over a socket, and goes on ignoring SIGCHLD; so does the copy."""
    code = """
    import signal, sys
    from libcriu_py import PIPE, restore
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for isolate in (False, True):
        process = restore(sys.argv[1], stdin=PIPE, stdout=PIPE, isolate=isolate, wait_ready=True)
        with open(f"/proc/{process.pid}/status") as status:
            mask = next(int(line.split()[1], 16) for line in status if line.startswith("SigIgn:"))
        print(bool(mask >> signal.SIGCHLD - 1 & 1), bool(process.communicate(b"")[0]), process.returncode)
    assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
    """
    assert plain.call(code, timeout=60).stdout == "True True 10\n" * 2


def test_working_directory_that_cannot_be_entered(plain: SelfDump) -> None:
    """A hand-over that fails is told to the restoring side, before any code of the program runs."""
    code = """
    import sys
    from libcriu_py import RestoreError, restore
    try:
        restore(sys.argv[1], cwd="/nowhere", wait_ready=True)
    except RestoreError as error:
        print(error)
    """
    assert "No such file or directory: b'/nowhere'" in plain.call(code).stdout


@by_criu
def test_fallback_runs_the_program_conventionally(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """Where what is restored is damaged the program starts conventionally, with one line that says why."""
    directory = directory_of(mode.account)
    code = """
    import sys
    from libcriu_py import checkpoint
    with checkpoint(**{"engine": "simulate"} if len(sys.argv) > 1 else {}) as snap:
        pass
    print(snap.outcome, sys.argv[1:])
    """
    dump = take(mode, directory, code)
    is_native = mode.name == "native"
    damaged = dump.path / ("plan" if is_native else "images/inventory.img")
    damaged.write_bytes(bytes(damaged.stat().st_size))
    reseal(dump.path)
    reason = f"{dump.path} cannot be restored here: its plan is damaged" if is_native else "criu refused to restore"
    command = [mode.account.python, "-m", "libcriu_py", "run"]
    done = mode.run([*command, dump.path, "--", "x"])
    assert done.stdout == "Outcome.SIMULATED ['x']\n"
    assert done.stderr.startswith(f"libcriu-py: starting conventionally: {reason}"), done.stderr
    assert done.stderr.count("\n") == 1
    assert mode.run([*command, "--quiet", dump.path, "--", "x"]).stderr == ""
    refused = mode.run([*command, "--no-fallback", dump.path, "--", "x"])
    assert (refused.returncode, refused.stdout) == (126 if is_native else 125, "")


HANDLER = """
import signal
from libcriu_py import checkpoint
def handle(number, frame):
    raise LookupError(number)
signal.signal(signal.SIGUSR1, handle)
try:
    with checkpoint():
        pass
    print("went on")
except LookupError as error:
    print("handled", *error.args)
"""


@pytest.mark.parametrize("name", MODES)
def test_handler_that_raises_meanwhile(
    name: str, mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]
) -> None:
    """What a signal handler raises during the hand-over the program gets, be it an ordinary exception."""
    mode = mode_named(name)
    dump = take(mode, directory_of(mode.account), HANDLER)
    zone = dump.path.parent / "zone"
    os.mkfifo(zone)
    mode.account.give(zone)
    command = [mode.account.native_launcher, "--no-fallback", dump.path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    env = {**mode.env, "TZ": f":{zone}", "PYTHONIOENCODING": "latin-1"}
    with popen_as(mode.account, command, env=env, **pipes) as process:
        held = -1
        while held < 0 and process.poll() is None:
            # Until the copy reads its time zone, in C; next it sets up the streams, in Python.
            with contextlib.suppress(OSError):
                held = os.open(zone, os.O_WRONLY | os.O_NONBLOCK)
        assert held >= 0, process.communicate()
        zone.unlink()
        copies = {pid for supervisor in standby.children(process.pid) for pid in standby.copies_of(supervisor)}
        (copy,) = copies or {process.pid}
        os.kill(copy, signal.SIGUSR1)
        os.close(held)
        said = process.communicate(timeout=TIMEOUT)
    assert said == (f"handled {int(signal.SIGUSR1)}\n", "")
