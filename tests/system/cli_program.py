"""The program that the tests of ``libcriu-py run`` start conventionally and restored: it does what arguments say."""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def say(*words: object) -> None:
    """Print a line at once, also from a signal handler that interrupts another line: no buffer can be entered twice."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def idle(*, reads: bool) -> None:
    """
    Wait for a line on standard input, while signals are handled at once.

    A handler of Python's runs between two operations of the interpreter. A signal that comes just before read() or
    pause() begins would wait for its end, so the wait is for a pipe that each signal writes to.

    Args:
        reads: Whether to end with a line; otherwise the wait is for ever.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    while True:
        ready, _, _ = select.select([woken, *([0] if reads else [])], [], [])
        if woken in ready:
            os.read(woken, 1)
        if 0 in ready:
            sys.stdin.readline()
            return


def report() -> None:
    """Tell what a program can see of how it was started."""
    with open("/proc/self/stat", encoding="ascii") as file:
        terminal = file.read().rpartition(")")[2].split()[4]
    seen = {
        "argv": sys.argv[1:],
        "name": sys.argv[0],
        "file": __file__,
        "cwd": os.getcwd(),
        "tty": [os.isatty(fd) for fd in range(3)],
        "has terminal": terminal != "0",
        "encoding": [sys.stdin.encoding, sys.stdout.encoding, sys.stderr.errors],
        "buffered": [sys.stdout.line_buffering, sys.stderr.line_buffering],
        "umask": os.umask(0o22),
        "variable": os.environ.get("CLI_TEST"),
        "bytes": os.environb.get(b"CLI_BYTES", b"").hex(),
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:3],
    }
    json.dump(seen, sys.stdout)


def terminal() -> None:
    """Tell what a program can see of its terminal."""
    with open("/dev/tty", "w", encoding="utf-8") as tty:
        tty.write("to the terminal\n")
    say("foreground", os.tcgetpgrp(0) == os.getpgrp(), "name", os.ttyname(0) == os.ttyname(1))


def window() -> None:
    """Print the size of the terminal now and each time it changes."""

    def changed(number: int, frame: FrameType | None) -> None:
        say("changed", *os.get_terminal_size())

    signal.signal(signal.SIGWINCH, changed)
    say("size", *os.get_terminal_size())
    idle(reads=True)
    say("end", *os.get_terminal_size())


def lines() -> None:
    """Answer each line that is typed."""
    say("ready")
    for line in sys.stdin:
        say("got", line.strip())
    say("end of input")


def count(*names: str) -> None:
    """Count signals until a line comes."""
    counts = dict.fromkeys(names, 0)

    def caught(number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        counts[name] += 1
        say("caught", name)

    for name in names:
        signal.signal(signal.Signals[name], caught)
    say("ready")
    idle(reads=True)
    say("counts", *(f"{name}={number}" for name, number in counts.items()))


def wait() -> None:
    """Wait for a signal that ends the process."""
    say("ready")
    idle(reads=False)


def graceful() -> None:
    """End with status 5 when asked to."""

    def end(number: int, frame: FrameType | None) -> None:
        say("leaving")
        sys.exit(5)

    signal.signal(signal.SIGTERM, end)
    wait()


def digest() -> None:
    """Read all of standard input."""
    data = sys.stdin.buffer.read()
    say(len(data), hashlib.sha256(data).hexdigest())


def flood() -> None:
    """Print until nobody reads."""
    while True:
        print("x" * 1000)


def fail(status: str) -> None:
    """End with a status."""
    say("failing")
    sys.exit(int(status))


def die(number: str) -> None:
    """End by a signal."""
    say("dying")
    os.kill(os.getpid(), int(number))


def crash() -> None:
    """Raise an exception."""
    message = "no reason"
    raise RuntimeError(message)


def message() -> None:
    """End with a message."""
    sys.exit("that was it")


def copy() -> None:
    """Copy standard input to standard output."""
    sys.stdout.write(sys.stdin.read())


def quiet() -> None:
    """Tell through the exit status which standard streams are open."""
    status = sum(1 << fd for fd, file in enumerate((sys.stdin, sys.stdout, sys.stderr)) if file is not None)
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            continue
        status += 8 << fd
    os._exit(status)


if __name__ == "__main__":
    known = globals()[sys.argv[1]] if len(sys.argv) > 1 else report
    known(*(sys.argv[2:] if known is not report else ()))
