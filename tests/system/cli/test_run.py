"""``libcriu-py run`` without a terminal, with the program started conventionally and restored in each mode."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.cli_start import TIMEOUT, SampleProgram, make_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode


@pytest.fixture
def place(mode: Mode, directory_of: Callable[[Account], Path]) -> Path:
    """Return a directory of the mode's account."""
    return directory_of(mode.account)


def run(argv: list[str], **settings: Any) -> subprocess.CompletedProcess[Any]:
    """Run a command with its output captured."""
    defaults = {"capture_output": True, "text": True, "timeout": TIMEOUT, "cwd": "/"}
    return subprocess.run(argv, check=False, **{**defaults, **settings})


def test_program_sees_no_difference(program: SampleProgram) -> None:
    """Arguments, names, directory, umask, environment, streams and descriptors are those of a conventional start."""
    settings = {
        "cwd": program.directory,
        "umask": 0o27,
        "env": {**os.environ, "CLI_TEST": "ä", "PYTHONIOENCODING": "", os.fsdecode(b"CLI_BYTES"): os.fsdecode(b"\xff")},
        "input": "",
    }
    conventional, restored = (
        run([*start, "report", "--", "-x", "ö", "", "a\nb"], **settings)
        for start in (program.conventional, program.restored)
    )
    assert json.loads(restored.stdout) == json.loads(conventional.stdout)
    assert json.loads(restored.stdout)["argv"] == ["report", "--", "-x", "ö", "", "a\nb"]
    assert (restored.returncode, restored.stderr) == (conventional.returncode, conventional.stderr) == (0, "")


def test_arguments_that_are_not_utf8(start: list[str]) -> None:
    """Any bytes but null reach the program."""
    done = run([*map(os.fsencode, start), b"report", b"\xff\xfe"])  # type: ignore[list-item]
    assert os.fsencode(json.loads(done.stdout)["argv"][1]) == b"\xff\xfe"


@pytest.mark.parametrize("status", [0, 1, 125, 255])
def test_exit_status(start: list[str], status: int) -> None:
    """The status of the program is the status of the command."""
    done = run([*start, "fail", str(status)])
    assert (done.returncode, done.stdout, done.stderr) == (status, "failing\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGABRT])
def test_death_by_signal(start: list[str], number: signal.Signals) -> None:
    """The command dies of the signal that the program died of."""
    done = run([*start, "die", str(int(number))])
    assert (done.returncode, done.stdout) == (-number, "dying\n")


def test_uncaught_exception(program: SampleProgram) -> None:
    """The traceback has the program's frames and no others; the status is 1."""
    conventional, restored = (run([*start, "crash"]) for start in (program.conventional, program.restored))
    assert restored.stderr == conventional.stderr
    assert restored.stderr.endswith("RuntimeError: no reason\n")
    assert restored.returncode == conventional.returncode == 1


def test_exit_message(start: list[str]) -> None:
    """A message given to sys.exit() goes to stderr, with status 1."""
    done = run([*start, "message"])
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "that was it\n")


def test_standard_input_through_a_pipe(start: list[str]) -> None:
    """Megabytes come through, to the end."""
    data = os.urandom(1 << 14) * 300
    done = run([*start, "digest"], input=data, text=False)
    assert done.stdout.decode() == f"{len(data)} {hashlib.sha256(data).hexdigest()}\n"


def test_streams_are_files(start: list[str], tmp_path: Path) -> None:
    """Reading goes on where the caller left off, and output is appended where the caller was."""
    (tmp_path / "in").write_text("skipped\nread\n")
    with (tmp_path / "in").open() as source, (tmp_path / "out").open("w") as target:
        os.lseek(source.fileno(), 8, os.SEEK_SET)
        os.write(target.fileno(), b"before\n")
        done = run([*start, "copy"], stdin=source, stdout=target, stderr=subprocess.PIPE, capture_output=False)
        os.write(target.fileno(), b"after\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out").read_text() == "before\nread\nafter\n"


def test_stdout_and_stderr_on_the_same_pipe(start: list[str]) -> None:
    """As with 2>&1, both arrive."""
    done = run([*start, "crash"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, capture_output=False)
    assert done.stdout.endswith("RuntimeError: no reason\n")


def test_reader_that_goes_away(program: SampleProgram) -> None:
    """
    A program that prints into a pipe without a reader ends as it would conventionally.

    When the reader goes, the last buffer may be empty or not; if not, its flush fails too and the status is 120.
    """
    ends = []
    for start in (program.conventional, program.restored):
        with subprocess.Popen([*start, "flood"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(5) == b"xxxxx"
            process.stdout.close()
            ends.append(process.stderr.read().partition(b"Exception ignored")[0])
            assert process.wait(TIMEOUT) in {1, 120}
    assert ends[0] == ends[1]
    assert b"BrokenPipeError" in ends[1]


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams(start: list[str], closed: str) -> None:
    """A stream that is closed is closed for the program, and sys has None for it."""
    done = run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *start, "quiet"], stdin=subprocess.DEVNULL)
    open_ones = sum(1 << fd for fd in range(3) if str(fd) not in closed.replace("&-", ""))
    assert done.returncode == open_ones * 9


def test_sigterm_reaches_the_program(start: list[str]) -> None:
    """Its handler runs, and its exit status is the command's."""
    with subprocess.Popen([*start, "graceful"], cwd="/", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.read() == "leaving\n"
        assert process.wait(TIMEOUT) == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2])
def test_signal_without_a_handler_ends_both(start: list[str], number: signal.Signals) -> None:
    """The command dies of the signal it was sent, because the program did."""
    with subprocess.Popen([*start, "wait"], cwd="/", stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.read() == ""
        assert process.wait(TIMEOUT) == -number


def test_each_signal_arrives_once(start: list[str]) -> None:
    """Signals to the command are passed on, each once."""
    names = ["SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP", "SIGCONT"]
    with subprocess.Popen(
        [*start, "count", *names], cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for name in names:
            process.send_signal(signal.Signals[name])
            assert process.stdout.readline() == f"caught {name}\n"
        out, _ = process.communicate("\n", TIMEOUT)
    assert out == "counts " + " ".join(f"{name}=1" for name in names) + "\n"


def test_killed_command_leaves_no_program_behind(start: list[str]) -> None:
    """When the command is killed, which it cannot pass on, the program ends too."""
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([*start, "wait"], cwd="/", **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
        assert process.stdout.read() == ""  # the end of file comes when nobody holds the pipe any more


def test_many_at_once_one_after_the_other(program: SampleProgram) -> None:
    """A pipeline of three restored copies of one snapshot works."""
    line = " | ".join(f"{shlex.join(program.restored)} copy" for _ in range(3))
    done = run(["/bin/sh", "-c", line], input="through three\n")
    assert (done.stdout, done.stderr) == ("through three\n", "")


def test_fallback_starts_the_program_conventionally(mode: Mode, place: Path) -> None:
    """With a damaged snapshot the program still runs, with its arguments and one line that says why."""
    program = SampleProgram.in_directory(mode, place)
    snapshot = program.directory / "snap"
    for file in (*(snapshot / "images").glob("core-*.img"), *snapshot.glob("plan")):
        file.write_bytes(b"nothing")
    done = run([*mode.command, "run", str(snapshot), "fail", "3"])
    assert (done.returncode, done.stdout) == (3, "failing\n")
    assert len(done.stderr.splitlines()) == 1
    quiet = run([*mode.command, "run", "--quiet", str(snapshot), "report", "a"])
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert json.loads(quiet.stdout)["argv"] == ["report", "a"]
    refused = run([*mode.command, "run", "--no-fallback", str(snapshot), "report"])
    assert (refused.returncode, refused.stdout) == (126, "")
    assert len(refused.stderr.splitlines()) == 1


OWN = """
import sys
from libcriu_py import checkpoint
with checkpoint("snap") as snap:
    pass
print(snap.outcome.value, sys.argv[1:], flush=True)
sys.exit(4)
"""


def test_conventional_start_of_a_program_that_checkpoints_itself(mode: Mode, place: Path) -> None:
    """It goes on at its checkpoint and does its work, and neither takes nor replaces a snapshot."""
    (place / "program.py").write_text(OWN)
    mode.account.give(place / "program.py")
    snapshot = make_snapshot(mode, place / "snap", place / "program.py")
    made = sorted(os.listdir(snapshot))
    start = [*mode.command, "run", str(snapshot), "a"]
    restored = run(start, cwd=place)
    assert (restored.returncode, restored.stdout) == (4, "restored ['a']\n"), restored.stderr
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    mode.account.give(elsewhere)
    for directory in (place, elsewhere):
        done = run(start, cwd=directory, env={**os.environ, "PYTHONHASHSEED": "5"})
        assert (done.returncode, done.stdout) == (4, "simulated ['a']\n"), done.stderr
        assert done.stderr.startswith("libcriu-py: starting conventionally: ")
    assert os.listdir(elsewhere) == []
    assert sorted(os.listdir(snapshot)) == made


PARTICULARS = """
import multiprocessing, subprocess, sys
class Answer:
    pass
def answer(_):
    return Answer()
if __name__ == "__main__":
    print(list(sys.stdin))
    print(open("/proc/self/comm").read())
    print(len(open(sys.argv[1]).read()), sys.stdout.encoding, sys.stdout.errors)
    print(len(subprocess.run(["cat", sys.argv[1]], text=True, capture_output=True, check=True).stdout))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(len(pool.map(answer, [1, 2])))
"""


def test_particulars(mode: Mode, place: Path) -> None:
    """Newlines of stdin, the name in the kernel, encodings of any locale and spawned workers are as conventionally."""
    script, text = place / "program.py", place / "text"
    script.write_text(PARTICULARS)
    text.write_text("gr\u00fc\u00dfe", encoding="utf-8")
    mode.account.give(script)
    mode.account.give(text)
    snapshot = make_snapshot(mode, place / "snap", script)
    for locale in ("C", "C.UTF-8", "xx_YY.UTF-8"):
        settings = {"env": {**os.environ, "LC_ALL": locale}, "input": b"a\rb\r\nc\n", "text": False}
        conventional = run([*mode.prefix, str(mode.account.python), str(script), str(text)], **settings)
        restored = run([*mode.command, "run", "--no-fallback", str(snapshot), str(text)], **settings)
        assert restored.stdout == conventional.stdout
        assert (restored.returncode, restored.stderr) == (conventional.returncode, conventional.stderr) == (0, b"")


def test_directory_without_a_snapshot(mode: Mode, place: Path) -> None:
    """There is nothing to fall back to: status 126 and a line that says how to make one."""
    done = run([*mode.command, "run", str(place / "none")])
    assert (done.returncode, done.stdout) == (126, "")
    assert "libcriu-py snapshot -o" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_no_snapshot_is_told_for_what_it_is(mode: Mode, place: Path) -> None:
    """A program or a command in its place is answered by the command that makes its snapshot."""
    script = place / "report.py"
    script.write_text("")
    for name, what in (
        (str(script), "it is a file; "),
        ("env", "it is a command; "),
        ("nosuch-z", "there is no such "),
    ):
        done = run([*mode.command, "run", name])
        (line,) = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (126, "")
        assert line.startswith(f"libcriu-py: {name} is no snapshot: {what}")
        assert f"libcriu-py snapshot {'-o ' if 'such' in what else ''}{name}" in line


def test_program_changed_since_the_snapshot_runs_as_it_is_now(mode: Mode, place: Path) -> None:
    """The main module is read afresh in every copy."""
    script = place / "app.py"
    script.write_text("print('old')")
    snapshot = make_snapshot(mode, place / "snap", script)
    script.write_text("print('new')")
    done = run([*mode.command, "run", "--no-fallback", str(snapshot)])
    assert (done.returncode, done.stdout, done.stderr) == (0, "new\n", "")


def test_warnings_of_the_compiler_come_in_each_copy(mode: Mode, place: Path) -> None:
    """A program is compiled before the dump, but not where that has something to say."""
    script = place / "app.py"
    script.write_text('assert 1 is 1\nprint("\\d", __import__("sys")._getframe().f_code.co_filename)\n')
    conventional = run([*mode.prefix, str(mode.account.python), str(script)])
    assert "SyntaxWarning" in conventional.stderr
    snapshot = make_snapshot(mode, place / "snap", script)
    done = run([*mode.command, "run", "--no-fallback", str(snapshot)])
    assert (done.returncode, done.stdout, done.stderr) == (0, conventional.stdout, conventional.stderr)


def test_streams_have_buffers_as_usual(mode: Mode, place: Path) -> None:
    """What a program leaves unwritten when it ends by os._exit is as much as conventionally."""
    script = place / "app.py"
    script.write_text("import os, sys\nfor _ in range(333):\n    sys.stdout.buffer.write(b'x' * 100)\nos._exit(0)\n")
    snapshot = make_snapshot(mode, place / "snap", script)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    conventional = run([*mode.prefix, str(mode.account.python), str(script)], env=env)
    restored = run([*mode.command, "run", "--no-fallback", str(snapshot)], env=env)
    assert len(restored.stdout) == len(conventional.stdout) < 33300


def test_interpreter_runs_any_program(mode: Mode, place: Path) -> None:
    """A snapshot of preloaded modules alone takes what python takes: a script, -m, -c, or a program on stdin."""
    snapshot = make_snapshot(mode, place / "py", "--preload", "json.tool,decimal")
    start = [*mode.command, "run", "--no-fallback", str(snapshot)]
    (place / "say.py").write_text(
        "import sys; print(sys.argv, sys.path[0], sorted({'decimal', 'json.tool'} & {*sys.modules}))"
    )
    for args in (
        ["say.py", "-x"],
        ["-m", "say", "-x"],
        ["-c", (place / "say.py").read_text(), "-x"],
        ["-", "-x"],
        [],
    ):
        settings = {"cwd": place, "input": (place / "say.py").read_text()}
        restored = run([*start, "--", *args], **settings)
        conventional = run([*mode.prefix, str(mode.account.python), *args], **settings)
        assert restored.stdout == conventional.stdout.replace("[]", "['decimal', 'json.tool']")
        assert (restored.returncode, restored.stderr) == (0, "")
    other = run([*start, "--", "-x", "say.py", "a"], cwd=place)  # of which a new one skips the first line
    assert (other.returncode, other.stdout, other.stderr) == (0, "", "")
