"""``libcriu-py run`` at a terminal, with the program started conventionally and restored in each mode."""

from __future__ import annotations

import os
import shlex
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.cli_start import TIMEOUT, Way
from tests.system.cli_terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

CTRL_C = "\x03"
CTRL_D = "\x04"
CTRL_Z = "\x1a"
CTRL_BACKSLASH = "\x1c"


@pytest.fixture(name="shell")
def shell_fixture(way: Way) -> Iterator[Terminal]:
    """Yield an interactive shell of the account's own in which $START starts the program."""
    start = shlex.join(way.argv[len(way.mode.prefix) :])
    with Terminal.with_shell([*way.mode.prefix, f"START={start}"], owner=way.mode.account.uid) as terminal:
        yield terminal


def test_streams_are_the_terminal(start: list[str]) -> None:
    """isatty(), the terminal's name, /dev/tty and the foreground process group are as expected."""
    with Terminal([*start, "terminal"]) as terminal:
        assert terminal.rest() == "to the terminal\nforeground True name True\n"
        assert terminal.wait() == 0


def test_window_size(start: list[str]) -> None:
    """The program gets the size of the terminal it is restored in, and learns of each change."""
    with Terminal([*start, "window"], rows=33, columns=101) as terminal:
        terminal.expect("size 101 33\n")
        terminal.resize(44, 99)
        terminal.expect("changed 99 44\n")
        terminal.resize(5, 140)
        terminal.expect("changed 140 5\n")
        terminal.type("\n")
        terminal.expect("end 140 5\n")
        assert terminal.wait() == 0


def test_lines_are_edited_and_ended_by_the_terminal(start: list[str]) -> None:
    """Input comes line by line, echoed, and Ctrl-D ends it."""
    with Terminal([*start, "lines"]) as terminal:
        terminal.expect("ready\n")
        terminal.type("hxello\x7f\x7f\x7f\x7f\x7fello\n")
        terminal.expect("got hello\n")
        terminal.type(CTRL_D)
        terminal.expect("end of input\n")
        assert terminal.wait() == 0


@pytest.mark.parametrize(("key", "number"), [(CTRL_C, signal.SIGINT), (CTRL_BACKSLASH, signal.SIGQUIT)])
def test_key_that_ends_the_program(start: list[str], key: str, number: signal.Signals) -> None:
    """The command dies of the signal of the key, as the shell expects of whatever Ctrl-C was meant for."""
    with Terminal([*start, "wait"]) as terminal:
        terminal.expect("ready\n")
        terminal.type(key)
        rest = terminal.rest()
        assert terminal.wait() == -number
    assert ("KeyboardInterrupt" in rest) == (number == signal.SIGINT)


def test_key_arrives_once(start: list[str]) -> None:
    """Although the command is in the foreground process group too, the program gets one SIGINT for one Ctrl-C."""
    with Terminal([*start, "count", "SIGINT", "SIGQUIT"]) as terminal:
        terminal.expect("ready\n")
        terminal.type(CTRL_C)
        terminal.expect("caught SIGINT\n")
        terminal.type(CTRL_BACKSLASH)
        terminal.expect("caught SIGQUIT\n")
        terminal.type(CTRL_C)
        terminal.expect("caught SIGINT\n")
        terminal.type("\n")
        terminal.expect("counts SIGINT=2 SIGQUIT=1\n")
        assert terminal.wait() == 0


def test_hangup(start: list[str]) -> None:
    """The program ends when its terminal goes away."""
    terminal = Terminal([*start, "wait"])
    try:
        terminal.expect("ready\n")
    finally:
        os.close(terminal.fd)
    assert terminal.process.wait(TIMEOUT) == -signal.SIGHUP


def test_stop_and_continue(shell: Terminal) -> None:
    """Ctrl-Z stops the program and gives the shell its prompt; fg continues it with the terminal."""
    shell.shell("$START lines")
    shell.expect("ready\n")
    for word in ("once", "twice"):
        shell.type(CTRL_Z)
        shell.expect("Stopped")
        shell.prompt()
        shell.shell("fg")
        shell.expect("lines\n")
        shell.type(f"{word}\n")
        shell.expect(f"got {word}\n")
    shell.type(CTRL_D)
    shell.expect("end of input\n")
    shell.prompt()
    shell.shell("echo status $?")
    shell.expect("status 0\n")


def test_status_of_a_stop(shell: Terminal) -> None:
    """The shell has that of the signal, be it typed, one that a terminal sends, or SIGSTOP."""
    shell.shell("$START lines")
    shell.expect("ready\n")
    shell.type(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    shell.shell("echo status $?")
    shell.expect(f"status {128 + signal.SIGTSTP}\n")
    shell.prompt()
    shell.shell("fg")
    shell.expect("lines\n")
    shell.type(CTRL_D)
    shell.expect("end of input\n")
    for number in (signal.SIGTSTP, signal.SIGTTOU, signal.SIGSTOP):
        shell.prompt()
        shell.shell(f"$START die {number.value}")
        shell.expect("Stopped")
        shell.prompt()
        shell.shell("echo status $?")
        shell.expect(f"status {128 + number}\n")
        shell.prompt()
        shell.shell("fg")


def test_program_that_stops_itself(shell: Terminal) -> None:
    """By SIGSTOP, which no handler sees: the shell has its prompt, and fg continues the program to its end."""
    shell.shell(f"$START die {signal.SIGSTOP.value}")
    shell.expect("dying\n")
    shell.expect("Stopped")
    shell.prompt()
    shell.shell("fg")
    shell.prompt()
    shell.shell("echo status $?")
    shell.expect("status 0\n")


def test_interrupt_after_a_stop(shell: Terminal) -> None:
    """Ctrl-C still ends the program after a stop, with the status that the shell has for it."""
    shell.shell("$START wait")
    shell.expect("ready\n")
    shell.type(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    shell.shell("fg")
    shell.expect("wait\n")
    shell.await_foreground()
    shell.type(CTRL_C)
    shell.expect("KeyboardInterrupt")
    shell.prompt()
    shell.shell("echo status $?")
    shell.expect("status 130\n")


def test_stopped_program_that_is_terminated(shell: Terminal) -> None:
    """Kill %1 on a stopped job ends it, since the shell continues a job that it terminates."""
    shell.shell("$START wait")
    shell.expect("ready\n")
    shell.type(CTRL_Z)
    shell.expect("Stopped")
    shell.prompt()
    # bash does not always say that a stopped job was terminated, so it is asked whether the job is there.
    shell.shell("job=$(jobs -p); kill %1; while kill -0 $job 2>&-; do :; done; echo it is gone")
    shell.expect("\nit is gone\n")


def test_background_and_foreground(shell: Terminal) -> None:
    """A job started with & is stopped when it reads from the terminal, and fg gives it the terminal."""
    shell.shell("set -b; $START lines &")
    shell.expect("ready\n")
    shell.expect("Stopped")
    shell.shell("jobs; fg")
    shell.expect("lines\n")
    shell.type("now\n")
    shell.expect("got now\n")
    shell.type(CTRL_D)
    shell.expect("end of input\n")
    shell.prompt()


def test_background_job_is_not_interrupted(shell: Terminal) -> None:
    """Ctrl-C goes to the foreground; a job in the background goes on until it is killed."""
    shell.shell("$START graceful &")
    shell.expect("ready\n")
    shell.type(CTRL_C)
    shell.prompt()
    # Its process alone: its group would have the signal twice, the second time perhaps in the midst of its end.
    shell.shell("kill -TERM $!; wait %1; echo over $?")
    shell.expect("leaving\n")
    shell.expect("over 5\n")


def test_status_of_a_pipeline(shell: Terminal) -> None:
    """The shell sees the program's own status in a pipeline, and death by a signal as such."""
    shell.shell("true | $START fail 7; echo status $?")
    shell.expect("status 7\n")
    shell.shell("$START die 9; echo status $?")
    shell.expect("status 137\n")
    shell.shell("$START flood 2>&1 | head -c 3; echo status ${PIPESTATUS[0]}")
    shell.expect("status (1|120)\n")


def test_terminal_settings_are_left_as_they_were(shell: Terminal) -> None:
    """After the program the terminal is in the state that it was in."""
    shell.shell(
        'before=$(stty -g); echo hello | $START copy; $START report; test "$before" = "$(stty -g)"; echo same $?'
    )
    shell.expect("same 0\n")


def test_redirected_stdout_leaves_the_terminal_for_the_rest(shell: Terminal) -> None:
    """With stdout in a file, stdin and stderr are still the terminal."""
    shell.shell("file=$(mktemp); $START report > $file; echo done $?; cat $file; rm $file")
    shell.expect("done 0\n")
    shell.expect(r'"tty": \[true, false, true\]')
    shell.prompt()
