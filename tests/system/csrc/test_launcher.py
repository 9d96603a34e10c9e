"""What libcriu-py-run does as a program, in each mode."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from libcriu_py.snapshot import launcher as native_launcher, record as launch_record
from tests.snapshots import reseal
from tests.system.accounts import popen_as
from tests.system.cli_terminal import Terminal
from tests.system.conftest import CRIU_MODES, MODES, NATIVE, Mode
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.accounts import Account

TIMEOUT = 60

PROGRAM = """
import hashlib, json, os, signal, sys, time

def say(text):
    os.write(1, text.encode() + b"\\n")

def report():
    umask = os.umask(0o22)
    ignored = [n for n in (1, 10, 12, 13, 17) if signal.getsignal(n) is signal.SIG_IGN]
    odd = os.environb.get(b"ODD", b"").hex()
    print(json.dumps([sys.argv, os.getcwd(), umask, ignored, odd, os.getpgrp() == os.getpid()]))

def end(status):
    sys.exit(int(status))

def die(number):
    os.kill(os.getpid(), int(number))

def digest():
    data = sys.stdin.buffer.read()
    say(f"{len(data)} {hashlib.sha256(data).hexdigest()}")

def streams():
    status = sum(1 << fd for fd, file in enumerate((sys.stdin, sys.stdout, sys.stderr)) if file is not None)
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            continue
        status += 8 << fd
    os._exit(status)

def echo():
    say("ready")
    for line in sys.stdin:
        say("got " + line.strip())
    say("over")

def begin(path):
    say("begun")
    open(path, "w").close()

def wait(*names):
    # Blocked, so that the order in which things happen does not matter.
    numbers = {signal.Signals[name] for name in names}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    say("ready")
    while True:
        number = signal.sigwait(numbers)
        say("caught " + number.name)
        if number == signal.SIGTERM:
            sys.exit(5)

def spin():
    while True:
        time.sleep(0.01)

def count():
    say(str(len(sys.argv)))

def read(*paths):
    for path in paths:
        say(open(path).read())

def descriptors():
    say(str(sorted(fd for fd in range(3, 100) if os.path.exists(f"/proc/self/fd/{fd}"))))

def schedule():
    import threading
    def own():
        return os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    tasks = map(int, os.listdir("/proc/self/task"))
    say(json.dumps([own(), sorted({os.getpriority(os.PRIO_PROCESS, task) for task in tasks})]))

def blocked():
    say(str(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))))

def let_go(number):
    os.close(int(number))
    say("ready")
    for line in sys.stdin:
        say("got " + line.strip())

if len(sys.argv) > 1:
    globals()[sys.argv[1]](*(sys.argv[2:] if sys.argv[1] not in {"count", "report"} else ()))
"""


class Copies(NamedTuple):
    """
    A snapshot and a way to start copies of it.

    Attributes:
        mode: How they are allowed, and whose they are.
        path: The snapshot.
    """

    mode: Mode
    path: Path

    @property
    def command(self) -> list[str]:
        """What starts a copy, up to options and snapshot."""
        return launch(self.mode.account)

    @property
    def env(self) -> dict[str, str]:
        """The variables that belong to the command."""
        return self.mode.env

    def run(self, *args: str | bytes, options: tuple[str, ...] = ("--no-fallback",), **more: Any) -> Any:
        """Run a copy to its end; `more` are options of `run_as`."""
        env = {**self.env, **more.pop("env", {})}
        return self.mode.run([*self.command, *options, self.path, "--", *args], env=env, **more)

    def start(self, *args: str, **more: Any) -> subprocess.Popen[str]:
        """Start a copy."""
        argv = [*self.command, "--no-fallback", self.path, "--", *args]
        settings = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **more}
        return popen_as(self.mode.account, argv, **{"env": self.env, **settings})


def launch(account: Account) -> list[str]:
    """Return the command of the launcher, for an account that may have a package of its own."""
    return [account.native_launcher]


def make(mode: Mode, directory: Path, code: str = PROGRAM) -> Path:
    """Make a snapshot of a program."""
    script = directory / "program.py"
    script.write_text(textwrap.dedent(code))
    mode.account.give(script)
    done = mode.run([mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap", script])
    assert done.returncode == 0, done.stderr
    return directory / "snap"


@pytest.fixture(scope="module", params=MODES)
def made(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[tuple[Mode, Path]]:
    """Yield one snapshot for each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield mode, make(mode, directory)
    shutil.rmtree(directory)


@pytest.fixture
def copies(made: tuple[Mode, Path]) -> Copies:
    """Return the snapshot of each mode."""
    return Copies(*made)


def read_line(process: subprocess.Popen[str]) -> str:
    """Read a line that a process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


# ---- what the program is given ---------------------------------------------


def test_surroundings(copies: Copies) -> None:
    """Arguments, working directory, umask, ignored signals, environment and process group are the launcher's."""
    env = {"ODD": os.fsdecode(b"\xff\xc3\xa4")}
    start = shlex.join([*copies.command, "--no-fallback", str(copies.path), "--", "report", "ä\udcff", "--", ""])
    line = f'trap "" HUP USR1 PIPE; umask 027; exec env --ignore-signal=CHLD {start}'
    done = copies.mode.run(["/bin/sh", "-c", line], env={**copies.env, **env}, text=False)
    assert (done.returncode, done.stderr) == (0, b"")
    argv, cwd, umask, ignored, odd, leads = json.loads(done.stdout)
    assert [os.fsencode(word) for word in argv[1:]] == [b"report", b"\xc3\xa4\xff", b"--", b""]
    home = str(copies.mode.account.home)
    assert (cwd, umask, ignored, odd, leads) == (home, 0o027, [1, 10, 13, 17], "ffc3a4", False)


def test_ten_thousand_arguments(copies: Copies) -> None:
    """As many as a wildcard may give."""
    assert copies.run("count", *map(str, range(10_000))).stdout == "10002\n"


def test_megabytes_through_a_pipe(copies: Copies) -> None:
    """Standard input arrives to its end."""
    data = os.urandom(1 << 14) * 200
    done = copies.run("digest", input=data, text=False)
    assert done.stdout.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}\n"


@pytest.mark.parametrize("closed", ["1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(copies: Copies, closed: str) -> None:
    """A stream that is closed is closed for the program, and sys has None for it."""
    start = shlex.join([*copies.command, "--no-fallback", str(copies.path), "--", "streams"])
    done = copies.mode.run(["/bin/sh", "-c", f"exec {start} {closed}"], env=copies.env)
    assert done.returncode == 9 * sum(1 << fd for fd in range(3) if f"{fd}<" not in closed and f"{fd}>" not in closed)


def test_inherited_descriptors(copies: Copies) -> None:
    """What the launcher was started with above 2 the program has under the same numbers, and children of it get."""
    start = shlex.join([*copies.command, "--no-fallback", str(copies.path), "--"])
    line = f"{start} read <(printf one) <(printf two) /dev/fd/5 5< <(printf five)"
    done = copies.mode.run(["/bin/bash", "-c", line], env=copies.env)
    assert (done.stdout, done.stderr) == ("one\ntwo\nfive\n", "")
    done = copies.mode.run(["/bin/bash", "-c", f"{start} descriptors 3</ 4</ 5</ 42</ 63</"], env=copies.env)
    assert (done.stdout, done.stderr) == ("[3, 4, 5, 42, 63]\n", "")


def test_inherited_pipe_ends_when_the_program_closes_it(copies: Copies) -> None:
    """Nobody else holds it: its reader sees the end while the program goes on."""
    reading, writing = os.pipe()
    with copies.start("let_go", str(writing), pass_fds=(writing,)) as process:
        os.close(writing)
        assert read_line(process) == "ready"
        assert os.read(reading, 1) == b""
        assert process.communicate("x\n", TIMEOUT)[0] == "got x\n"
    os.close(reading)


OWN_FILE = """
import os, sys
from libcriu_py import checkpoint
os.dup2(os.open("/dev/null", os.O_RDONLY), 42)
with checkpoint():
    pass
texts = [open(path).read() for path in sys.argv[1:]]
print(os.readlink("/proc/self/fd/42"), os.path.exists("/proc/self/fd/43"), *texts)
"""


def test_files_of_the_program_stay(own_account: Account, tmp_path: Path) -> None:
    """What the program has open is not replaced by an inherited descriptor, and no argument names the wrong file."""
    mode = Mode(MODES[0], MODES[0], own_account)
    copies = Copies(mode, take(mode, tmp_path, OWN_FILE).path)
    start = shlex.join([*copies.command, str(copies.path), "--"])
    for line, said, complaint in (
        (f"{start} 42</ 43</", "/dev/null True\n", ""),
        (f"{start} /dev/fd/43 42</ 43< <(printf x)", "/dev/null True x\n", ""),
        (f"{start} /dev/fd/42 42< <(printf x)", "", "an argument names the inherited descriptor 42, but"),
    ):
        done = mode.run(["/bin/bash", "-c", line], env={**copies.env, "LIBCRIU_PY_ENGINE": "simulate"})
        assert done.stdout == said or not said, done.stderr
        assert complaint in done.stderr
        assert bool(done.stderr) == bool(complaint)


def test_more_descriptors_than_a_copy_can_be_given(copies: Copies) -> None:
    """The program is started conventionally then, with all of them."""
    line = 'for fd in {3..99} {101..254}; do eval "exec $fd</dev/null"; done; exec 5< <(printf five); exec '
    start = shlex.join([*copies.command, str(copies.path), "--", "read", "/dev/fd/5"])
    done = copies.mode.run(["/bin/bash", "-c", line + start], env=copies.env)
    assert done.stdout == "five\n"
    if copies.mode.name == NATIVE:
        assert done.stderr == ""  # it has inherited them
        return
    assert "this process was started with 25" in done.stderr
    assert "descriptors above 2, of which a copy can be given 249" in done.stderr


@pytest.mark.parametrize("command", [["nice", "-n", "4"], ["chrt", "-b", "0"], ["nice", "-n", "3", "chrt", "-i", "0"]])
def test_scheduling(copies: Copies, command: list[str]) -> None:
    """Niceness and policy are the launcher's, and those of a conventional start."""
    program = [*command, copies.mode.account.python, copies.path.parent / "program.py", "schedule"]
    conventional = copies.mode.run(program).stdout
    argv = [*command, *copies.command, "--no-fallback", copies.path, "--", "schedule"]
    done = copies.mode.run(argv, env=copies.env)
    assert (done.stdout, done.stderr) == (conventional, "")


def test_blocked_signals(copies: Copies) -> None:
    """They are those that were blocked when the launcher was started."""
    block = "import os, signal, sys; signal.pthread_sigmask(0, {10, 21, 40}); os.execv(sys.argv[1], sys.argv[1:])"
    argv = [*copies.command, "--no-fallback", copies.path, "--", "blocked"]
    done = copies.mode.run([copies.mode.account.python, "-c", block, *argv], env=copies.env)
    assert (done.stdout, done.stderr) == ("[10, 21, 40]\n", "")
    assert copies.run("blocked").stdout == "[]\n"


THREADS = """
import json, os, sys, threading
from libcriu_py import checkpoint
go, at_ease = threading.Event(), threading.Event()
def relax():
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    at_ease.set()
    go.wait()
for target in (go.wait, relax):
    threading.Thread(target=target, daemon=True).start()
at_ease.wait()
with checkpoint():
    pass
print(sorted(os.getpriority(os.PRIO_PROCESS, int(task)) for task in os.listdir("/proc/self/task")))
"""


def test_scheduling_of_threads(own_account: Account, tmp_path: Path) -> None:
    """All threads have the launcher's niceness, but those that the program gave another, and none has the dump's."""
    mode = Mode(MODES[0], MODES[0], own_account)
    (tmp_path / "threads.py").write_text(THREADS)
    nice, base = ["nice", "-n", "5"], os.nice(0)
    command = [own_account.python, "-m", "libcriu_py", "snapshot", "-o", tmp_path / "snap", tmp_path / "threads.py"]
    assert mode.run([*nice, *command]).returncode == 0
    copies = Copies(mode, tmp_path / "snap")
    start = [*copies.command, "--no-fallback", copies.path]
    if os.geteuid() == 0:
        start[:0] = ["/usr/bin/unshare", "--pid", "--fork", "--mount-proc"]  # where nobody has the ids of its threads
        assert json.loads(mode.run(start).stdout) == [base, base, 19]
    assert json.loads(mode.run([*nice, *start]).stdout) == [base + 5, base + 5, 19]


# ---- how it ends -----------------------------------------------------------


@pytest.mark.parametrize("status", [0, 125])
def test_exit_status(copies: Copies, status: int) -> None:
    """The status of the program is that of the launcher."""
    done = copies.run("end", str(status))
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def test_status_where_ends_of_children_are_ignored(copies: Copies) -> None:
    """Who ignores SIGCHLD, as Perl programs do, has those ignore it that it starts."""
    start = ["env", "--ignore-signal=CHLD", *copies.command, "--no-fallback", copies.path, "--", "end", "6"]
    done = copies.mode.run(start, env=copies.env)
    assert (done.returncode, done.stdout, done.stderr) == (6, "", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_death_by_signal(copies: Copies, number: signal.Signals) -> None:
    """The launcher dies of the signal that the program died of."""
    assert copies.run("die", str(int(number))).returncode == -number


def test_signals_are_passed_on(copies: Copies) -> None:
    """Each arrives, once, and the program's own end is the launcher's."""
    names = ["SIGUSR1", "SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM"]
    with copies.start("wait", *names) as process:
        assert read_line(process) == "ready"
        for name in names:
            process.send_signal(signal.Signals[name])
            assert read_line(process) == f"caught {name}"
        assert process.wait(TIMEOUT) == 5


@pytest.mark.parametrize("milliseconds", [0, 3, 8, 15, 25, 40])
def test_signal_before_there_is_a_program(copies: Copies, milliseconds: int) -> None:
    """SIGTERM ends the launcher at whatever moment it comes, and nothing is left behind."""
    with copies.start("wait", "SIGTERM") as process:
        try:
            process.wait(milliseconds / 1000)
        except subprocess.TimeoutExpired:
            process.terminate()
        assert process.wait(TIMEOUT) in {-signal.SIGTERM, 5}


def test_interrupt_before_there_is_a_program(copies: Copies) -> None:
    """Ctrl-C ends a copy at whatever moment it comes, with the program's own end, and the snapshot stays."""
    files = sorted(os.listdir(copies.path))
    for milliseconds in range(24):
        with copies.start("spin", process_group=0, stderr=subprocess.PIPE) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(milliseconds / 1000)
            os.killpg(process.pid, signal.SIGINT)
            process.communicate(timeout=TIMEOUT)
            assert process.returncode == -signal.SIGINT
    assert sorted(os.listdir(copies.path)) == files


def test_error_before_there_is_a_program(copies: Copies) -> None:
    """What a copy cannot take over is left to the conventional start, and the snapshot stays."""
    files = sorted(os.listdir(copies.path))
    done = copies.run(env={"PYTHONIOENCODING": "none-such"})
    assert done.returncode == 125
    assert done.stderr == "libcriu-py: the restored process could not take over: unknown encoding: none-such\n"
    assert sorted(os.listdir(copies.path)) == files


def test_killed_launcher_takes_the_program_along(copies: Copies) -> None:
    """SIGKILL cannot be passed on; the program ends all the same."""
    with copies.start("wait", "SIGTERM") as process:
        assert read_line(process) == "ready"
        process.kill()
        assert read_line(process) == ""  # the end of file comes when nobody holds the pipe any more


def test_two_at_once(copies: Copies) -> None:
    """A second copy, whose pid is taken, moves to a pid namespace."""
    with copies.start("echo") as first:
        assert read_line(first) == "ready"
        done = copies.run("end", "7")
        assert (done.returncode, done.stderr) == (7, "")
        out, _ = first.communicate("x\n", TIMEOUT)
        assert out == "got x\nover\n"
        assert first.returncode == 0


# ---- the terminal ----------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path, own_account: Account) -> Iterator[Terminal]:
    """Yield an interactive shell in which $START starts a copy, as root where the tests have the rights."""
    mode = Mode(MODES[0], MODES[0], own_account)
    copies = Copies(mode, make(mode, tmp_path))
    start = shlex.join([*copies.command, "--no-fallback", str(copies.path)])
    with Terminal.with_shell(env={**os.environ, **copies.env, "START": start}) as terminal:
        yield terminal


def test_stop_and_continue(shell: Terminal) -> None:
    """Ctrl-Z gives the shell its prompt, fg gives the program the terminal, Ctrl-C ends it."""
    shell.shell("$START echo")
    shell.expect("ready\n")
    for word in ("once", "twice"):
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.prompt()
        shell.shell("fg")
        shell.expect("echo\n")
        shell.type(f"{word}\n")
        shell.expect(f"got {word}\n")
    shell.type("\x03")
    shell.expect("KeyboardInterrupt")
    shell.prompt()
    shell.shell("echo status $?")
    shell.expect("status 130\n")


def test_background_job(shell: Terminal) -> None:
    """A job that reads from the terminal is stopped until it is in the foreground."""
    shell.shell("set -b; $START echo &")
    shell.expect("ready\n")
    shell.expect("Stopped")
    shell.shell("fg")
    shell.expect("echo\n")
    shell.type("now\n")
    shell.expect("got now\n")
    shell.type("\x04")
    shell.expect("over\n")


# ---- conventional starts ---------------------------------------------------


@pytest.fixture(name="broken")
def broken_fixture(made: tuple[Mode, Path]) -> Iterator[Copies]:
    """Yield a copy of the snapshot that may be broken."""
    mode, path = made
    directory = mode.account.directory()
    done = mode.run(["/bin/cp", "-a", path, directory / "snap"])
    assert done.returncode == 0
    yield Copies(mode, directory / "snap")
    shutil.rmtree(directory)


def break_image(copies: Copies) -> None:
    """Make an image unreadable for criu, or the plan for the launcher, whose size stays."""
    (image,) = (*copies.path.glob("images/core-*.img"), *copies.path.glob("plan"))
    image.write_bytes(b"x" * image.stat().st_size)
    reseal(copies.path)


def remove_images(copies: Copies) -> None:
    """Remove the images, or the plan."""
    if copies.mode.name == NATIVE:
        (copies.path / "plan").unlink()
    else:
        shutil.rmtree(copies.path / "images")


def name_another_machine(copies: Copies) -> None:
    """Change the record, as if it came from another machine."""
    path = copies.path / "launch"
    path.write_bytes(launch_record.encode(launch_record.decode(path.read_bytes())._replace(arch="vax")))


def damage_record(copies: Copies) -> None:
    """Cut the end off the record, which leaves the recorded command."""
    path = copies.path / "launch"
    path.write_bytes(path.read_bytes()[:-100])


def make_older(copies: Copies) -> None:
    """Have copies speak a protocol that this version does not."""
    path = copies.path / "launch"
    launch = launch_record.decode(path.read_bytes())._replace(protocol=1, package_version="0.0.1")
    path.write_bytes(launch_record.encode(launch))


REASONS = {
    "image": (break_image, 125, "criu refused to restore: "),
    "images": (remove_images, 126, "cannot be read (No such file or directory); make the snapshot anew"),
    "machine": (name_another_machine, 126, "the snapshot is for vax processors"),
    "record": (damage_record, 126, "make the snapshot anew"),
    "protocol": (make_older, 126, "is of libcriu_py 0.0.1, whose copies speak protocol 1, and this version speaks "),
}


NATIVE_REASONS = {
    "image": (break_image, 126, "plan"),
    "images": (remove_images, 126, "plan"),
}


@pytest.mark.parametrize("what", REASONS)
def test_program_runs_conventionally(broken: Copies, what: str) -> None:
    """With its arguments, status and one line that says why; --no-fallback fails instead, --quiet drops the line."""
    spoil, code, reason = {**REASONS, **(NATIVE_REASONS if broken.mode.name == NATIVE else {})}[what]
    spoil(broken)
    done = broken.run("count", "a", "b", options=())
    assert (done.returncode, done.stdout) == (0, "4\n")
    assert done.stderr.startswith("libcriu-py: starting conventionally: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    done = broken.run("end", "3", options=("--quiet",))
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    done = broken.run("count")
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_conventional_program_gets_the_signals_and_streams(broken: Copies) -> None:
    """It takes the launcher's place: closed streams are closed, default signals default."""
    name_another_machine(broken)
    start = shlex.join([*broken.command, "--quiet", str(broken.path), "--", "streams"])
    done = broken.mode.run(["/bin/sh", "-c", f"exec {start} 0<&-"], env=broken.env)
    assert done.returncode == 9 * (2 + 4)
    assert broken.run("die", str(int(signal.SIGPIPE)), options=("--quiet",)).returncode in {-signal.SIGPIPE, 0}


def test_limit_of_the_size_of_files(copies: Copies) -> None:
    """Where the request is larger than a file may be, the program starts conventionally; nothing dies of that."""
    start = shlex.join([*copies.command, str(copies.path), "--", "count", "x" * 2000])
    done = copies.mode.run(["/bin/sh", "-c", f"ulimit -f 1; exec {start}"], env=copies.env)
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert done.stderr.startswith("libcriu-py: starting conventionally: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("made", CRIU_MODES, indirect=True)
def test_criu_that_is_not_there(copies: Copies) -> None:
    """Status 125 without fallback, and the conventional program with it."""
    env = {"LIBCRIU_PY_CRIU": "/nowhere/criu"}
    refused, done = copies.run("count", env=env), copies.run("count", options=(), env=env)
    assert (refused.returncode, refused.stderr) == (
        125,
        "libcriu-py: LIBCRIU_PY_CRIU=/nowhere/criu is not an executable file\n",
    )
    assert (done.returncode, done.stdout) == (0, "2\n")


CRIU_THAT_DIES = """\
#!{python}
import os, socket, subprocess, sys

supervisor = f"/proc/{{os.getppid()}}/fd"
for name in os.listdir(supervisor):
    # Those that criu looks for in the process that asks it.
    if os.path.isdir(f"{{supervisor}}/{{name}}"):
        os.dup2(os.open(f"{{supervisor}}/{{name}}", os.O_RDONLY), int(name))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
launcher = socket.socket(fileno=int(sys.argv[2]))
theirs.set_inheritable(True)
subprocess.Popen(["{criu}", "swrk", str(theirs.fileno())], close_fds=False)
ours.send(launcher.recv(65536))
open("{begun}").close()
"""
"""Restores, and fails when the program has begun: two lines that meet at a FIFO."""


@pytest.mark.parametrize("made", [name for name in CRIU_MODES if name != "capability"], indirect=True)
def test_criu_that_dies_when_the_program_has_begun(made: tuple[Mode, Path]) -> None:
    """The program is not started once more."""
    mode, path = made
    account = mode.account
    directory = account.directory()
    criu, begun = directory / "criu", directory / "begun"
    criu.write_text(CRIU_THAT_DIES.format(python=account.python, criu=account.criu, begun=begun))
    criu.chmod(0o755)
    os.mkfifo(begun)
    for file in (criu, begun):
        account.give(file)
    env = {**mode.env, "LIBCRIU_PY_CRIU": str(criu)}
    done = mode.run([account.native_launcher, path, "--", "begin", begun], env=env, timeout=20)
    assert (done.returncode, done.stdout) == (125, "begun\n")
    assert "starting conventionally" not in done.stderr
    assert "libcriu-py: criu refused to restore: " in done.stderr
    shutil.rmtree(directory)


# ---- more ways to a copy ---------------------------------------------------


def test_launch_script(made: tuple[Mode, Path]) -> None:
    """A launch script is the program: executable, with arguments of its own, from anywhere."""
    mode, path = made
    script = path.parent / "mytool"
    code = "import sys; from libcriu_py.copies.launch_script import write_launch_script as w; w(*sys.argv[1:])"
    written = mode.run([mode.account.python, "-c", code, script, path, mode.value])
    assert written.returncode == 0, written.stderr
    done = mode.run([script, "end", "6"], cwd="/")
    assert (done.returncode, done.stdout, done.stderr) == (6, "", "")
    done = mode.run([script, "count", "--quiet", "--"], cwd="/")
    assert (done.stdout, done.stderr) == ("4\n", "")


@pytest.mark.parametrize("made", CRIU_MODES, indirect=True)
def test_mapped_memory(broken: Copies) -> None:
    """A snapshot whose memory is mapped is restored; without that memory it is refused."""
    code = """if True:
        import sys
        from libcriu_py.memory.optimize import optimize
        from libcriu_py.snapshot.manifest import Snapshot
        if Snapshot.open(sys.argv[1]).memory_key is None:
            optimize(sys.argv[1], wanted="map")
    """
    done = broken.mode.run([broken.mode.account.python, "-c", code, broken.path])
    assert done.returncode == 0, done.stderr
    done = broken.run("count", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")
    memory = broken.path / "memory.img"
    memory.chmod(0o600)
    os.truncate(memory, memory.stat().st_size - 4096)
    done = broken.run("count", "x")
    assert (done.returncode, done.stdout) == (126, "")
    assert "memory.img has " in done.stderr


def test_launcher_is_found() -> None:
    """The package has built its launcher."""
    found = native_launcher.find()
    assert found is not None
    assert Path(found).name == "libcriu-py-run"


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("out of reach", "{command} cannot be started: its interpreter {python}: Permission denied\n"),
        ("gone", "{command} cannot be started: its interpreter {python}: No such file or directory; {again}\n"),
        ("not executable", "{command} cannot be started: Permission denied\n"),
        ("missing", "{command} cannot be started: No such file or directory; {again}\n"),
    ],
)
def test_a_command_that_cannot_be_started_is_told_with_the_reason(tmp_path: Path, state: str, said: str) -> None:
    """As in an environment below another user's home; to install it again is advised where that would help."""
    launcher = native_launcher.find()
    assert launcher is not None
    program, command, python = (tmp_path / name for name in ("libcriu-py", "libcriu-py-command", "python"))
    shutil.copy2(launcher, program)
    if state != "missing":
        command.write_text(f"#! {python} -I\n", encoding="utf-8")
        command.chmod(0o644 if state == "not executable" else 0o755)
    if state != "gone":
        python.write_text("", encoding="utf-8")  # not executable, also for root
    done = subprocess.run([program, "inspect"], capture_output=True, text=True, check=False)
    told = said.format(command=command, python=python, again="install libcriu-py again")
    assert (done.returncode, done.stderr) == (125, f"libcriu-py: {told}")
