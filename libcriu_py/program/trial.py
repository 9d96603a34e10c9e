"""
Trial runs: a forked child runs the program, and returns the names of the modules that it has imported.

The trial run of a program that never ends is ended when it is ready: a thread of it waits for that.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from typing import NamedTuple

from libcriu_py.linux.files import read_small
from libcriu_py.program.child_result import ChildResult
from libcriu_py.program.main import Program, path0, run_main
from libcriu_py.program.preload import as_wanted, origin, report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from libcriu_py.program.preload import Wanted

LIMIT = 300.0
"""Seconds after which a trial run is ended in any case."""
_PATIENCE = 5.0
"""Seconds from SIGTERM to SIGKILL."""
_LOOKS_EVERY = 0.05
_QUIET_LOOKS = 6
"""Looks without a new module after which a process that is ready counts as having imported everything."""
_LISTENS = "0A"
"""TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h)."""


class Until(NamedTuple):
    """When a trial run is ended: when it listens on a port, after some seconds, or when a path exists."""

    port: int = 0
    seconds: float = LIMIT
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Until:
        """
        Return what a text stands for: "8000" is a port, "5s" a time, and anything else a path.

        Raises:
            ValueError: There is no such port or time.
        """
        if re.fullmatch(r"\d+", text):
            if not 0 < int(text) < 1 << 16:
                message = f"there is no port {text}"
                raise ValueError(message)
            return cls(port=int(text))
        if re.fullmatch(r"\d+(\.\d+)?s", text):
            return cls(seconds=float(text[:-1]))
        if not text:
            message = "neither a port, nor seconds such as 5s, nor a path"
            raise ValueError(message)
        return cls(path=os.path.abspath(text))

    def __str__(self) -> str:
        """Return the condition as what follows "until"."""
        if self.port:
            return f"it listens on port {self.port}"
        return f"{self.path} exists" if self.path else f"{self.seconds:g} s have passed"

    def holds(self, begun: float) -> bool:
        """Return whether it is time, for a run that began then, by the monotonic clock."""
        if self.port:
            return _is_port_open(self.port)
        return os.path.exists(self.path) if self.path else time.monotonic() - begun >= self.seconds


class Learnt(NamedTuple):
    """What a trial run imported, and the directories that it has added to `sys.path` to find that."""

    wanted: list[Wanted]
    path: list[str]


def learn(program: Program, args: Sequence[str], until: Until | None = None) -> Learnt:
    """
    Run a program once, in a child, and return what it imports.

    Args:
        program: The program.
        args: Its arguments.
        until: When to end it; None for a program that ends by itself.

    Returns:
        The modules that were loaded when it ended; none, with a remark on stderr, if it ended without running its exit
        handlers (os._exit, a signal). Without the program's own that only processes import which it forks: a server
        that reads its application anew on SIGHUP has its workers do that.

    Raises:
        ChildProcessError: The condition holds before the run begins.
    """
    if until is not None and until.seconds == LIMIT and until.holds(0):
        what = f"another process listens on port {until.port}" if until.port else f"{until.path} exists"
        message = f"{what} before the trial run; end that, or name another condition with --learn-until"
        raise ChildProcessError(message)
    report(f"trial run with {' '.join(args) or 'no arguments'}{f' until {until}' if until else ''}")
    answer = ChildResult()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        _run(program, args, answer, until)
    try:
        status = _wait(pid, is_group=until is not None)
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # it may have ended by the same key, and been waited for
            (os.kill if until is None else os.killpg)(pid, 9)
            os.waitpid(pid, 0)
        raise
    lines = answer.lines()
    _comment(os.waitstatus_to_exitcode(status), lines, until)
    path = [words[1] for words in lines if words[0] == _PATH]
    return Learnt(as_wanted(words for words in lines if words[0] not in _MARKS), path)


def _wait(pid: int, *, is_group: bool) -> int:
    """Wait for a trial run, and end what it has left running in its process group; return its wait status."""
    if is_group:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # so that the group keeps its number
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, 9)
    return os.waitpid(pid, 0)[1]


def _comment(code: int, lines: Sequence[Sequence[str]], until: Until | None) -> None:
    """Report how a trial run ended, unless that was as it should."""
    if until is not None and [_ENDED, "ready"] in lines:
        return
    if until is not None and [_ENDED, "late"] in lines:
        report(f"the trial run was ended after {LIMIT:.0f} s, before {until}; the modules that it imported are used")
    elif not lines:
        report(f"the trial run ended with status {code} and without running its exit handlers: nothing learned")
    elif code != 0 or until is not None:
        before = f", before {until}" if until is not None else ""
        report(f"the trial run ended with status {code}{before}; the modules that it imported are used")


def _run(program: Program, args: Sequence[str], answer: ChildResult, until: Until | None) -> None:
    """Run the program in the child."""
    import atexit
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends the command, which says so
    sys.orig_argv[:] = [sys.executable, *program.arguments(), *args]
    path = [*sys.path, path0(program)]
    atexit.register(lambda: answer.write(_loaded(path)))
    os.register_at_fork(after_in_child=lambda: _inherited.update(sys.modules))
    if until is not None:
        for number in (signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        os.setpgid(0, 0)
        _Watch(answer, until, path).begin()
    run_main(program, args)
    raise SystemExit


_BEGUN, _ENDED, _PATH = _MARKS = ("+", "-", "@")
"""
First words of the lines that are no modules: a process that the program has forked begins, or has answered; a
directory of `sys.path`.
"""


class _Watch:
    """What ends a trial run when it is ready. Processes that it forks watch, too: they may import modules."""

    def __init__(self, answer: ChildResult, until: Until, path: Sequence[str]) -> None:
        self._answer = answer
        self._until = until
        self._path = path
        self._main = os.getpid()
        self._begun = time.monotonic()

    def begin(self) -> None:
        """Begin to watch this process, and those that it will fork."""
        os.register_at_fork(after_in_child=self._begin_in_fork)
        self._start()

    def _begin_in_fork(self) -> None:
        self._answer.write([(_BEGUN, str(os.getpid()))])
        self._start()

    def _start(self) -> None:
        import threading

        threading.Thread(target=self._watch, name="libcriu-py-trial", daemon=True).start()

    def _watch(self) -> None:
        import signal

        ready = self._await(lambda: self._until.holds(self._begun), LIMIT)
        self._settle()
        self._answer.write([*_loaded(self._path), (_ENDED, str(os.getpid()))])
        if os.getpid() != self._main:
            return
        try:
            self._await(self._have_forks_answered, _PATIENCE)
            self._answer.write([(_ENDED, "ready" if ready else "late")])
        finally:
            os.killpg(self._main, signal.SIGTERM)
            time.sleep(_PATIENCE)
            os.killpg(self._main, signal.SIGKILL)

    def _await(self, condition: Callable[[], bool], limit: float) -> bool:
        """Wait until a condition holds, and return whether it does."""
        deadline = time.monotonic() + limit
        while not (holds := condition()) and time.monotonic() < deadline:
            time.sleep(_LOOKS_EVERY)
        return holds

    def _settle(self) -> None:
        """Wait until this process imports nothing more: a server may listen before it has imported its application."""
        seen: list[int] = []

        def is_settled() -> bool:
            seen.append(-1 if _is_importing() else len(sys.modules))
            looks = seen[-_QUIET_LOOKS:]
            return len(looks) == _QUIET_LOOKS and len({*looks}) == 1 and looks[0] > 0

        self._await(is_settled, 2 * _PATIENCE)

    def _have_forks_answered(self) -> bool:
        lines = self._answer.so_far()
        begun, answered = ({words[1] for words in lines if words[0] == kind} for kind in (_BEGUN, _ENDED))
        return not any(_lives(pid) for pid in begun - answered)


def _is_importing() -> bool:
    """Return whether a thread is in an import."""
    for frame in sys._current_frames().values():  # noqa: SLF001 - documented
        at: FrameType | None = frame
        while at is not None:
            if at.f_code.co_filename == "<frozen importlib._bootstrap>":
                return True
            at = at.f_back
    return False


def _lives(pid: str) -> bool:
    """Return whether a process is there, and no zombie."""
    stat = read_small(f"/proc/{pid}/stat")
    return stat is not None and stat.rpartition(b")")[2].split()[0] not in {b"Z", b"X"}


def _is_port_open(port: int) -> bool:
    """Return whether a process listens on a TCP port."""
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/self/net/{table}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state == _LISTENS and int(local.rpartition(":")[2], 16) == port:
                return True
    return False


_inherited: set[str] = set()
"""What a process that the program has forked had imported already."""


def _loaded(path: Sequence[str]) -> list[Sequence[str]]:
    """
    Return the names of the modules that can be imported again under the same name, and the new part of `sys.path`.

    Args:
        path: What was on it.
    """
    names = [
        name
        for name, module in list(sys.modules.items())
        if name not in {"__main__", "__mp_main__"} and getattr(getattr(module, "__spec__", None), "name", None) == name
    ]
    if _inherited:
        names = [name for name in names if name in _inherited or not _is_own(sys.modules[name])]
    added = [(_PATH, os.path.abspath(entry)) for entry in sys.path if entry not in path]
    return [*added, *((name,) for name in names)]


def _is_own(module: object) -> bool:
    """Return whether a module is the program's own, and neither installed nor of the standard library."""
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and origin(os.path.dirname(file)) == "own"
