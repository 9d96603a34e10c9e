"""A standby pool in a process of its own, for tests of what comes out of it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.system.accounts import popen_as

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from tests.system.conftest import Mode

TIMEOUT = 60

DRIVER = """
import json, sys
from libcriu_py import StandbyPool

with StandbyPool(sys.argv[1], **json.loads(sys.argv[2]), report=lambda text: print(text, file=sys.stderr)) as pool:
    for line in sys.stdin:
        pool.wait_ready(50)
        print(pool.waiting, pool.served, flush=True)
"""

PROGRAM = """
import hashlib, json, os, random, resource, signal, sys, uuid

def say(text):
    os.write(1, text.encode() + b"\\n")

def report():
    umask = os.umask(0o22)
    ignored = [n for n in (1, 10, 12, 13, 17) if signal.getsignal(n) is signal.SIG_IGN]
    odd = os.environb.get(b"ODD", b"").hex()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(json.dumps([sys.argv, os.getcwd(), umask, ignored, odd, files, sorted(os.listdir("/proc/self/fd"))]))

def end(status):
    sys.exit(int(status))

def fail():
    raise LookupError("what went wrong")

def die(number):
    os.kill(os.getpid(), int(number))

def read(*paths):
    for path in paths:
        say(open(path).read())

def digest():
    data = sys.stdin.buffer.read()
    print(len(data), hashlib.sha256(data).hexdigest())

def numbers():
    print(random.random(), uuid.uuid4(), os.urandom(8).hex())

def named():
    say(str(os.environ["LISTEN_PID"] == str(os.getpid())))

def listing(directory):
    say(str(os.listdir(directory)))
    sys.stdin.read()

def faults():
    say(str(resource.getrusage(resource.RUSAGE_SELF).ru_minflt))
    sys.stdin.read()

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

def daemon():
    if os.fork() == 0:
        say(str(os.getpid()))
        os.close(1)
        signal.pause()

if len(sys.argv) > 1:
    globals()[sys.argv[1]](*(sys.argv[2:] if sys.argv[1] != "report" else ()))
"""


class Stock(NamedTuple):
    """What a pool has and has given."""

    waiting: int
    served: int


class Pool:
    """
    A pool that an account runs, without a terminal.

    Args:
        mode: Who runs it, and how restores are allowed.
        snapshot: The snapshot.
        prefix: What starts the pool.
        settings: Of `StandbyPool`.
    """

    def __init__(self, mode: Mode, snapshot: Path, *, prefix: Sequence[str] = (), **settings: Any) -> None:
        argv = [*prefix, mode.account.python, "-c", textwrap.dedent(DRIVER), snapshot, json.dumps(settings)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = popen_as(mode.account, argv, env=mode.env, text=True, start_new_session=True, **pipes)
        self.complaints = ""

    def stock(self) -> Stock:
        """Wait until the pool is full, and tell what it has and has given."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        return Stock(*map(int, line.split()))

    def supervisors(self) -> set[int]:
        """Return the pids of the supervisors of its copies."""
        return supervisors_of(self.process.pid)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let it end."""
        _, self.complaints = self.process.communicate(timeout=TIMEOUT)
        if error is not None:
            print(self.complaints)


def children(pid: int) -> set[int]:
    """Return the pids of a process's children; none when it is gone."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found |= set(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def supervisors_of(pid: int) -> set[int]:
    """Return the pids of the supervisors of copies that a process has restored: each is the child of a launcher."""
    below = {child for launcher in children(pid) for child in children(launcher)}
    return {child for child in below if name_of(child) == "lcp-supervisor"}


def copies_of(supervisor: int) -> set[int]:
    """Return the pids of a supervisor's copies; where it is pid 1 there is a process between."""
    below = children(supervisor)
    return {pid for child in below for pid in (children(child) if name_of(child) == "lcp-parent" else {child})}


def descendants(pid: int) -> set[int]:
    """Return the pids of a process's children, their children, and so on."""
    found: set[int] = set()
    for child in children(pid):
        found |= {child} | descendants(child)
    return found


def named(*names: str) -> set[int]:
    """Return the pids of all processes with one of these names that have not ended."""
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()}
    return {pid for pid in pids if name_of(pid) in names and "Z" not in state_of(pid)}


def state_of(pid: int) -> str:
    """Return the state of a process as /proc has it; empty when it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def name_of(pid: int) -> str | None:
    """Return the name of a process; None when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
