"""
The first steps of a restored copy: it receives its request and makes it true.

The protocol is in `libcriu_py.snapshot.request`.
"""

from __future__ import annotations

import _locale  # of C, without the cost of `locale`
import fcntl
import os
import resource
import stat
import sys
import time
from typing import TYPE_CHECKING

from libcriu_py.dump import stdio
from libcriu_py.linux import pages, processes, sockets, this_process
from libcriu_py.program import environment as own_variables
from libcriu_py.snapshot.manifest import WORKING_SET
from libcriu_py.snapshot.request import ERROR, PAGES, READY, STARTED, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence


class Handover:
    """
    The restored side of a hand-over.

    Thread safety: none; it is used by the thread that took the checkpoint.
    """

    def __init__(self, slot: int, prefix: Sequence[str]) -> None:
        """
        Take up the hand-over, right before the dump.

        Args:
            slot: The descriptor of the request's slot.
            prefix: The command line of the process up to its arguments.
        """
        self._socket: int | None = slot
        self._begun = False
        self._prefix = list(prefix)
        self._others = processes.other_tasks()
        schedule = this_process.schedule()
        self._scheduled_alike = [task for task in self._others if this_process.schedule(task) == schedule]

    def receive(self, *, before_start: Callable[[Sequence[int], Mapping[bytes, bytes]], None]) -> Request:
        """
        Receive and apply the request.

        A failure is told to the restoring side, which can still start the program otherwise, and ends
        this process: nothing of the program has run in it yet.

        Args:
            before_start: Makes Python's stdio fit; called with the closed descriptors and the environment.

        Returns:
            The request.

        Raises:
            KeyboardInterrupt: Or what else a handler of the program has raised for a signal that came meanwhile.
        """
        try:
            request, fds = self._read()
            apply(request, self._prefix)
            self._schedule(request.schedule)
            if fds:
                self._install_fds(fds, request)
            before_start(request.closed, request.env)
        except Exception as error:  # noqa: BLE001 - whatever it is, a conventional start is the way to go on
            self._send(ERROR + (str(error) or repr(error)).encode("utf-8", "backslashreplace"))
            self.await_release()
            os._exit(125)
        self.report_started()
        return request

    def in_copy(self) -> bool:
        """Return whether this is a copy: in the place of the request's slot it has a socket."""
        return self._begun or (self._socket is not None and stat.S_ISSOCK(os.fstat(self._socket).st_mode))

    def report_started(self) -> None:
        """Tell the restoring side that what happens from here on is the program's doing; done twice it does nothing."""
        if not self._begun:
            self._begun = True
            self._send(STARTED)

    def await_release(self) -> None:
        """Wait until criu is through with all of this program."""
        processes.await_release(self._others)

    def report_ready(self) -> None:
        """Tell the restoring side that the after-hooks are through; done twice it does nothing."""
        if self._socket is not None:
            self._send(READY)
            self.close()

    def close(self) -> None:
        """Close the slot, or the socket that was in its place."""
        if self._socket is not None:
            os.close(self._socket)
            self._socket = None

    def _read(self) -> tuple[Request, list[int]]:
        if self._socket is None:
            message = "the hand-over is over"
            raise ValueError(message)
        tag, (memory, *fds) = sockets.receive_fds(self._socket)
        while tag == PAGES:  # a copy that waits has time
            pages.fetch_pages(memory)
            os.close(memory)
            tag, (memory, *fds) = sockets.receive_fds(self._socket)
        try:
            request = Request.decode(os.pread(memory, os.lseek(memory, 0, os.SEEK_END), 0))
        finally:
            os.close(memory)
        pages.prefetch(f"{request.snapshot}/{WORKING_SET}")
        return request, fds

    def _schedule(self, wanted: Sequence[int]) -> None:
        """
        Take over niceness, scheduling policy and priority, as far as that is permitted, in each thread and child.

        Those that had others than this thread at the dump keep them: the program has set them.
        """
        if this_process.schedule() != wanted:
            for task in (0, *self._scheduled_alike):
                this_process.set_schedule(task, wanted)

    def _install_fds(self, fds: Sequence[int], request: Request) -> None:
        """
        Move passed descriptors to their numbers; none may be lost on the way.

        What is open under a number that was asked for goes. What was only inherited has to give way to what the program
        has open, which knows it by that number.
        """
        numbers = [*request.pass_fds, *request.inherited]
        ours = {*fds, self._socket}
        kept = {number for number in request.inherited if number not in ours and stdio.is_open(number)}
        if kept:
            _refuse_named(kept, request.argv)
        wanted = {*numbers} - kept
        if self._socket is not None and self._socket in wanted:
            self._socket = _move(self._socket, wanted)
        fds = [fd if fd not in wanted else _move(fd, wanted) for fd in fds]
        for fd, number in zip(fds, numbers, strict=True):
            if number not in kept:
                os.dup2(fd, number, inheritable=True)
            os.close(fd)

    def _send(self, message: bytes) -> None:
        try:
            sockets.send(self._socket if self._socket is not None else -1, message)
        except BrokenPipeError:
            return  # the restoring side does not wait for news


def _move(fd: int, avoided: Collection[int]) -> int:
    """Move a descriptor to a number that is free and not among those to be avoided."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    while moved in avoided:
        os.close(moved)
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, moved + 1)
    os.close(fd)
    return moved


def _refuse_named(kept: Iterable[int], argv: Sequence[bytes]) -> None:
    """
    Refuse to go on with an argument such as /dev/fd/63 where that is a file of the program's own.

    Raises:
        ValueError: There is one.
    """
    for number in kept:
        if any(argument.endswith(b"/fd/%d" % number) for argument in argv):
            message = f"an argument names the inherited descriptor {number}, where the program has a file of its own"
            raise ValueError(message)


def command_prefix() -> list[str]:
    """Return the command line of this process up to the arguments of its program."""
    arguments = sys.argv[1:]
    count = len(arguments)
    if count and sys.orig_argv[-count:] != arguments:
        return list(sys.orig_argv)  # the program changed sys.argv: what was given is not to be told
    return sys.orig_argv[: len(sys.orig_argv) - count]


def apply(request: Request, prefix: Sequence[str]) -> None:
    """
    Make the arguments, environment and process attributes of a request those of this process.

    Args:
        request: What the restoring side asks for.
        prefix: The command line up to the arguments.

    Raises:
        OSError: The working directory cannot be entered.
    """
    argv, env, cwd, umask, *_, pgid, ignored, limits, _, _, blocked = request
    arguments = [*map(os.fsdecode, argv)]
    sys.orig_argv[:] = [*prefix, *arguments]
    sys.argv[1:] = arguments
    _replace_environment(env)
    os.chdir(cwd)
    os.umask(umask)
    _join_group(pgid)
    _ignore(ignored)
    _block(blocked)
    _limit(limits)
    time.tzset()
    set_locale()
    set_title()


def _replace_environment(env: Mapping[bytes, bytes]) -> None:
    variables = own_variables.with_changes(env)
    # One call for all: putenv() searches the environment each time, which for 10,000 variables is felt.
    this_process.replace_environ(variables)
    # What was there is not emptied but kept: to free a variable is to write to the page that it is in.
    _replaced.append(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001
    os.environ._data = os.environb._data = variables  # type: ignore[attr-defined]  # noqa: SLF001


_replaced: list[object] = []


def _join_group(pgid: int | None) -> None:
    """Leave a process group of our own for the launcher's, so that the terminal's signals arrive."""
    if pgid is None or os.getpgrp() == pgid or os.getsid(0) == os.getpid():
        return
    try:
        os.setpgid(0, pgid)
    except PermissionError:
        return  # of another session or pid namespace, where there is no terminal to share


def _ignore(signals: Sequence[int]) -> None:
    if not signals:
        return
    import signal
    import threading

    in_main_thread = threading.current_thread() is threading.main_thread()
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    for number in signals:
        if signal.getsignal(number) not in untouched:
            continue
        if in_main_thread:
            signal.signal(number, signal.SIG_IGN)
        else:
            this_process.ignore_signal(number)


def _block(signals: Sequence[int]) -> None:
    """Block signals in this thread, and so in those that it starts; what the program has blocked itself stays so."""
    if signals:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def _limit(limits: Mapping[int, tuple[int, int]]) -> None:
    """Take over resource limits as far as that is permitted: a hard limit can only be lowered."""
    for number, (soft, hard) in limits.items():
        have = resource.getrlimit(number)
        if have == (soft, hard):
            continue
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, PermissionError):
            ceiling = have[1]
            allowed = soft if ceiling == resource.RLIM_INFINITY or 0 <= soft <= ceiling else ceiling
            resource.setrlimit(number, (allowed, ceiling))


_LocaleError: type[Exception] = vars(_locale)["Error"]  # the stubs do not have it


def set_locale() -> None:
    """Take LC_CTYPE from the environment, as Python does when it starts (PEP 538 for the C locale)."""
    try:
        name = _locale.setlocale(_locale.LC_CTYPE, "")
    except _LocaleError:
        name = _locale.setlocale(_locale.LC_CTYPE, "C")
    if name not in {"C", "POSIX"}:
        return
    coerced = next(filter(_sets_ctype, ("C.UTF-8", "C.utf8", "UTF-8")), None)
    if coerced and not os.environ.get("LC_ALL") and os.environ.get("PYTHONCOERCECLOCALE") != "0":
        os.environ["LC_CTYPE"] = coerced  # for children, as _coerce_default_locale_settings (pylifecycle.c) has it
    elif coerced and os.environ.get("PYTHONUTF8") == "0":
        _locale.setlocale(_locale.LC_CTYPE, "C")
    # Else Python would be in UTF-8 mode (PEP 540), which cannot be entered any more: files have its encoding so, too.


def _sets_ctype(name: str) -> bool:
    """Set LC_CTYPE; tell whether there is such a locale."""
    try:
        _locale.setlocale(_locale.LC_CTYPE, name)
    except _LocaleError:
        return False
    return True


def set_title() -> None:
    """Show the new command line in `ps`, where `setproctitle` was loaded before the dump."""
    setproctitle = sys.modules.get("setproctitle")
    if setproctitle is not None:
        line = os.fsencode(" ".join(sys.orig_argv))
        name = setproctitle.getthreadtitle()  # by which pgrep and top know a program; it is changed, too
        setproctitle.setproctitle(line.decode("utf-8", "replace"))
        setproctitle.setthreadtitle(name)


def prepare_title() -> None:
    """Have `setproctitle` find the place of the command line, if it is there, without the name that it gives then."""
    try:
        import setproctitle
    except ImportError:  # an optional package: without it `ps` shows the old title
        return
    name = setproctitle.getthreadtitle()
    setproctitle.getproctitle()
    setproctitle.setthreadtitle(name)
