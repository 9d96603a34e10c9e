"""
The job in the background that makes a program's snapshot when the program has ended.

The launcher starts it (csrc/launcher/background.c) in a session of its own, at the lowest priority, with no descriptor.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from libcriu_py.auto.entry import ASIDE, NEW, Entry, Learned, program_of, watched
from libcriu_py.auto.probe import PRELUDE, Found, probe
from libcriu_py.copies.interpreter import renew
from libcriu_py.copies.launch_script import write_launch_script
from libcriu_py.copies.order import HOLD, Order
from libcriu_py.copies.process import RestoredProcess
from libcriu_py.copies.restore import make_request
from libcriu_py.dump.prepare import Plan, command_line
from libcriu_py.dump.spawn import spawn_for_snapshot
from libcriu_py.errors import CriuError, in_words
from libcriu_py.privilege.mode import Privilege
from libcriu_py.program import interpreter
from libcriu_py.program.main import Program
from libcriu_py.settings import variable
from libcriu_py.snapshot import launcher, remains, staging
from libcriu_py.snapshot.manifest import Snapshot
from libcriu_py.snapshot.record import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_DIRECTORIES = 8
CANARY_LIMIT = 60
"""Seconds that a copy has to stop before its program."""
MOST_IN_A_WHILE = 5
WHILE = 600
"""Seconds in which no more snapshots are made: two environments in turns would each make the other's stale."""


class JobFailed(CriuError):
    """There is no snapshot, for this reason."""


def build(entry: Entry) -> bool:
    """
    Make a snapshot now.

    Args:
        entry: The program's place, which is there.

    Returns:
        Whether there is one; else the entry says why not.
    """
    kind, value = entry.program
    words = (entry.path, "tool" if kind == "interpreter" else kind, value, os.getcwd(), "build", "")
    env = {**os.environ, "LIBCRIU_PY_AUTO": "0"}
    command = interpreter.command("from libcriu_py.auto.job import main; main()", *words, python=entry.python)
    return subprocess.run(command, env=env, check=False).returncode == 0


def verify(entry: Entry) -> str | None:
    """
    Read a snapshot and try a copy of it; set it aside if it is damaged.

    Args:
        entry: The program's place, locked, with a snapshot.

    Returns:
        What is wrong; None if nothing is.
    """
    try:
        wrong = [mismatch.text for mismatch in Snapshot.open(entry.snapshot).verify()]
        if not wrong:
            _try_copy(entry.snapshot)
            return None
        reason = "; ".join(wrong)
    except CriuError as error:
        reason = in_words(error)
    set_aside(entry, reason)
    return reason


def main() -> None:
    """
    Do what the arguments say.

    Raises:
        SystemExit: A snapshot was asked for, and there is none.
    """
    path, kind, value, cwd, what, seen = sys.argv[1:7]
    if kind == "interpreter":
        renew(value, sys.executable)
        return
    entry = Entry(path, program_of(kind, value), sys.executable)
    with entry.locked(wait=what == "build") as ours:
        if not ours:
            return
        _log_to(entry.file("job.log"))
        if what == "crash":
            set_aside(entry, "a copy of its snapshot crashed within a second")
        elif what == "build":
            raise SystemExit(0 if work(entry, cwd, is_stale=True, at_once=True) else 1)
        elif what == "more":
            work(entry, cwd)
        elif _seen(entry) == seen:  # else another job was faster
            work(entry, cwd, is_stale=True)


def _log_to(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _seen(entry: Entry) -> str:
    """Return which snapshot there is, as the launcher notes it (lcp_background_see)."""
    try:
        status = os.stat(entry.snapshot)
    except OSError:
        return "none"
    return f"{status.st_ino} {status.st_ctime_ns}"


def set_aside(entry: Entry, reason: str) -> None:
    """Have no copies of a snapshot any more, and keep it for who wants to know why."""
    _clear(entry.file(ASIDE))
    with contextlib.suppress(FileNotFoundError):
        os.rename(entry.snapshot, entry.file(ASIDE))
    _refuse(entry, reason, for_long=True)


def _refuse(entry: Entry, reason: str, *, for_long: bool = False) -> None:
    import site

    entry.note(reason=reason)
    places = [*site.getsitepackages(), site.getusersitepackages()]
    own = [entry.program.value] if entry.program.kind == "script" else []
    files = map(watched, [launcher.path(), os.path.realpath(entry.python), *own, *places])
    entry.refuse(reason, files, for_long=for_long)


def work(entry: Entry, cwd: str, *, is_stale: bool = False, at_once: bool = False) -> bool:
    """
    Make a snapshot with what programs have imported, if that is more than the last one has, or that is stale.

    Args:
        entry: The program's place, locked.
        cwd: The working directory of the start that asked for it.
        is_stale: Whether the last one cannot be used.
        at_once: Whether to make it however often that was done lately.

    Returns:
        Whether there is a snapshot.
    """
    state = entry.state()
    known = Learned(*state.get("learned", ({}, ())))
    learned = known.with_more(entry.take_runs())
    entry.note(learned=learned)
    if not is_stale and tuple(map(len, learned)) == tuple(map(len, known)):
        return True
    times = [when for when in state.get("times", ()) if time.time() - when < WHILE]
    if not at_once and len(times) >= MOST_IN_A_WHILE:
        entry.note(reason=f"{len(times)} snapshots were made in the last {WHILE // 60} minutes; wait for a while")
        return False
    try:
        place = _make(entry, learned, cwd)
    except (CriuError, OSError) as error:
        _refuse(entry, in_words(error))
        return False
    place.accept()
    place.note(times=[*times, time.time()], reason=None)
    if place is not entry:
        entry.accept()
        _forget_directories(entry)
    return True


def _forget_directories(entry: Entry) -> None:
    """Keep the snapshots of the working directories that were used last."""
    import shutil

    for old in entry.directories()[MOST_DIRECTORIES:]:
        with old.locked() as ours:
            if ours:
                shutil.rmtree(old.path)


def _make(entry: Entry, learned: Learned, cwd: str) -> Entry:
    """
    Make the snapshot with those modules that may be in it; without any, if a dump is refused with them.

    Returns:
        Its place, which is another than that of the program if it is for one working directory.
    """
    is_of_directory = os.path.basename(entry.path).startswith("at-")
    found = probe(entry.program, entry.python, learned, cwd if is_of_directory else entry.path)
    place = entry
    if found.by_directory and not is_of_directory:
        place = entry.of_directory(cwd)
        place.note(learned=learned)
        _clear(entry.snapshot)
        found = probe(entry.program, entry.python, learned, cwd)
    try:
        _dump(place, found, cwd)
    except JobFailed as error:
        if not found.modules:
            raise
        without = dict.fromkeys(found.modules, f"no snapshot could be made with it: {error}")
        found = Found([], {**found.without, **without}, [])
        _dump(place, found, cwd)
    place.note(modules=found.modules, without=found.without, cwd=cwd if found.by_directory else None)
    return place


def _dump(entry: Entry, found: Found, cwd: str) -> None:
    new = entry.file(NEW)
    _clear(new)
    ending = variable("LIBCRIU_PY_EXIT") or "fast"
    program, first = entry.program, list[str]()
    if program.kind == "interpreter":
        program, first = Program("interpreter", ""), [PRELUDE.format(program.value)]
    plan = Plan(new, program, preload=first, modules=found.modules, compared=found.files, entry=entry.path, exit=ending)
    os.environ["LIBCRIU_PY_IF_EXISTS"] = "replace"
    os.environ["LIBCRIU_PY_IF_IMPOSSIBLE"] = "raise"
    os.environ["LIBCRIU_PY_COMMAND"] = "1"
    with _working_directory(cwd if found.by_directory else entry.path):
        status = spawn_for_snapshot(command_line(entry.python, plan), env=os.environ)
    if not os.path.exists(os.path.join(new, MANIFEST)):
        raise JobFailed(_last_word() or f"the program ended with status {status}")
    _try_copy(new)
    if os.path.lexists(entry.snapshot):
        staging.put_in_place(new, entry.snapshot)
    else:
        os.rename(new, entry.snapshot)
    if program.kind == "interpreter":
        write_launch_script(entry.file("python"), entry.snapshot, fallback=[entry.python], python="own")


def _clear(directory: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        remains.remove(directory)


@contextlib.contextmanager
def _working_directory(path: str) -> Iterator[None]:
    before = os.getcwd()
    with contextlib.suppress(OSError):
        os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _last_word() -> str:
    """Return what was said last of why there is no snapshot."""
    sys.stderr.flush()
    with open("/proc/self/fd/2", encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    said = [line.partition("no snapshot was made: ")[2] for line in lines]
    return next((word for word in reversed(said) if word), "") or next(filter(None, reversed(lines)), "")


def _try_copy(directory: str) -> None:
    """
    Restore a copy, up to where its program would begin.

    Raises:
        JobFailed: It cannot be restored.
    """
    if Snapshot.open(directory).engine != "native":
        request = make_request(directory, (), env=None, cwd=None, main=None)
        order = Order(directory, request.encode(), mode=Privilege.AUTO, flags=HOLD)
        with RestoredProcess(order, (), streams=(None, None, None)) as held:
            held.kill()
        return
    command = [launcher.path(), "--no-fallback", "--stop", directory]
    copy = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + CANARY_LIMIT
    while True:
        pid, status = os.waitpid(copy.pid, os.WUNTRACED | os.WNOHANG)
        if pid:
            break
        if time.monotonic() > until:
            copy.kill()
            copy.wait()
            message = f"a copy did not come to its program within {CANARY_LIMIT} s"
            raise JobFailed(message)
        time.sleep(0.01)
    if os.WIFSTOPPED(status):
        os.kill(copy.pid, signal.SIGKILL)
        copy.wait()
        return
    copy.returncode = os.waitstatus_to_exitcode(status)
    said = copy.stderr.read().decode(errors="replace") if copy.stderr else ""
    message = f"a copy ended with status {copy.returncode} before its program: {said.strip()}"
    raise JobFailed(message)
