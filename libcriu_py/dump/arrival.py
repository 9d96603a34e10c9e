"""
The first steps of a restored copy: receive the request and apply it.

`libcriu_py.snapshot.request` documents the protocol.
"""

from __future__ import annotations

import _locale  # of C, without the cost of `locale`
import fcntl
import os
import resource
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

from libcriu_py.dump import stdio, takeover, title
from libcriu_py.hooks.lifecycle import Outcome, Return
from libcriu_py.linux import arrival as early, pages, processes, sockets, this_process
from libcriu_py.program import environment as own_variables
from libcriu_py.snapshot.manifest import WORKING_SET
from libcriu_py.snapshot.request import ERROR, PAGES, READY, STARTED, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from typing import NoReturn

    from libcriu_py.hooks.lifecycle import Departure

FAILED = 125
"""Exit status of a copy that could not take over, and of a launcher that could not start it."""


class Handover:
    """
    The copy's side of the hand-over.

    Thread safety: none; only the thread that took the checkpoint uses it.
    """

    def __init__(self, slot: int, prefix: Sequence[str]) -> None:
        """
        Prepare the hand-over, right before the dump.

        Args:
            slot: The descriptor of the request's slot, which a restore replaces by a socket.
            prefix: The command line of the process up to its arguments.
        """
        self._socket: int | None = slot
        self._begun = False
        self._prefix = list(prefix)
        self._others = self._tasks()
        schedule = this_process.schedule()
        self._scheduled_alike = [task for task in self._others if this_process.schedule(task) == schedule]

    def expect(
        self,
        departure: Departure,
        *,
        calls: Sequence[Callable[[], object]] = (),
        unwanted: int = -1,
        **plan: Any,
    ) -> None:
        """
        Have copies do this in C as far as it is usual, right before the dump.

        Args:
            departure: What is to be done beside it.
            calls: What the engine does in a copy.
            unwanted: A descriptor that the program must not inherit.
            plan: Further members of `struct lcp_arrival`.
        """
        if self._socket is None:
            return
        if self._others:
            calls = (*calls, self.await_release)
        takeover.expect(
            departure,
            slot=self._socket,
            prefix=self._prefix,
            calls=calls,
            **{**self._plan(), "unwanted": unwanted, **plan},
        )

    def _plan(self) -> dict[str, Any]:
        """Return what C needs to know of this kind of hand-over."""
        return {"takes_schedule": True, "title": title.show if title.is_known() else None}

    def is_over(self) -> bool:
        """Return whether this is a copy in which C has done it all."""
        return early.state() in {early.APPLIED, early.ENDED}

    def has_run(self) -> bool:
        """Return whether this is a copy whose program has run already."""
        return early.state() == early.ENDED

    def close_unless_ended(self, fd: int) -> None:
        """Close a descriptor that was unwanted."""
        if not self.has_run():
            os.close(fd)

    def receive(
        self, dumped_at: float, *, before_start: Callable[[Sequence[int], Mapping[bytes, bytes]], None]
    ) -> Return:
        """
        Receive and apply the request, unless that has been done in C.

        On failure, report the error to the restoring side, which can still start the program conventionally, and end
        this process: no code of the program has run in it yet.

        Args:
            dumped_at: When the dump was, by the wall clock.
            before_start: Called with the closed descriptors and the environment, to set up Python's stdio.

        Raises:
            KeyboardInterrupt: A signal arrived meanwhile; or whatever else the program's handler raises for it.
        """
        if self.is_over():
            self._begun = True
            has_run = self.has_run()
            if has_run:
                self._socket = None
            block = early.Block()
            returned = Return(Outcome.RESTORED, None, max(0.0, time.time() - dumped_at), has_run)
            return returned._replace(later=lambda: Request.decode(block.read()))
        takeover.raise_interruption()
        request: Request | None = None
        try:
            request, fds = self._read()
            apply(request, self._prefix)
            self._show_arguments(request)
            self._schedule(request)
            if fds:
                self._install_fds(fds, request)
            before_start(request.closed, request.env)
        except Exception as error:  # after any other error, the program is started conventionally
            if takeover.is_interruption(error):
                raise
            self._give_up(error, request)
        self.report_started()
        return Return(Outcome.RESTORED, request, max(0.0, time.time() - dumped_at))

    def _tasks(self) -> list[int]:
        """Return the ids of the threads and children that a copy has too."""
        return processes.other_tasks()

    def _give_up(self, error: Exception, request: Request | None) -> NoReturn:  # noqa: ARG002
        """Report an error to the restoring side, which starts the program conventionally, and end this process."""
        self._send(ERROR + (str(error) or repr(error)).encode("utf-8", "backslashreplace"))
        self.await_release()
        os._exit(FAILED)

    def _show_arguments(self, request: Request) -> None:  # noqa: ARG002
        """Show the new command line in `ps`."""
        title.show()

    def in_copy(self) -> bool:
        """Return whether this process is a copy, in which a socket has replaced the request's slot."""
        if self._begun or early.state() != early.NOT_ARRIVED:  # C has closed the socket if the program has run
            return True
        return self._socket is not None and stat.S_ISSOCK(os.fstat(self._socket).st_mode)

    def report_started(self) -> None:
        """Report that code of the program runs from now on; a second call does nothing."""
        if not self._begun:
            self._begun = True
            self._send(STARTED)

    def await_release(self) -> None:
        """Wait until criu has detached from every thread and child of this process."""
        processes.await_release(self._others)

    def report_ready(self) -> None:
        """Report to the restoring side that the after-hooks have run; a second call does nothing."""
        if self._socket is not None:
            self._send(READY)
            self.close()

    def close(self) -> None:
        """Close the slot, or the socket that replaced it."""
        if self._socket is not None:
            os.close(self._socket)
            self._socket = None

    def _read(self) -> tuple[Request, list[int]]:
        if self._socket is None:
            message = "the hand-over is over"
            raise ValueError(message)
        received = early.received_fds()
        tag, (memory, *fds) = (b"F", received) if received else sockets.receive_fds(self._socket)
        while tag == PAGES:  # an idle copy prefetches what its program is likely to use
            pages.fetch_pages(memory)
            os.close(memory)
            tag, (memory, *fds) = sockets.receive_fds(self._socket)
        try:
            request = Request.decode(os.pread(memory, os.lseek(memory, 0, os.SEEK_END), 0))
        finally:
            os.close(memory)
        pages.prefetch(f"{request.snapshot}/{WORKING_SET}")
        return request, fds

    def _schedule(self, request: Request) -> None:
        """
        Apply niceness, scheduling policy and priority to each thread and child, as far as permitted.

        Threads and children that differed from this thread at the dump keep theirs: the program set those.
        """
        if this_process.schedule() != request.schedule:
            for task in (0, *self._scheduled_alike):
                this_process.set_schedule(task, request.schedule)

    def _install_fds(self, fds: Sequence[int], request: Request) -> None:
        """
        Move the received descriptors to their numbers, without one overwriting another.

        A descriptor in pass_fds replaces what is open under its number. An inherited one is dropped where the program
        already uses that number.
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
        if self.has_run():
            return  # C has told all, and may have closed the socket
        try:
            sockets.send(self._socket if self._socket is not None else -1, message)
        except BrokenPipeError:
            return  # the restoring side no longer listens


def _move(fd: int, avoided: Collection[int]) -> int:
    """Move a descriptor to a free number outside `avoided`."""
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    while moved in avoided:
        os.close(moved)
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, moved + 1)
    os.close(fd)
    return moved


def _refuse_named(kept: Iterable[int], argv: Sequence[bytes]) -> None:
    """
    Refuse an argument such as /dev/fd/63 if the program has a file of its own open under that number.

    Raises:
        ValueError: An argument names one of the `kept` descriptors.
    """
    for number in kept:
        if any(argument.endswith(b"/fd/%d" % number) for argument in argv):
            message = (
                f"an argument names the inherited descriptor {number}, but the program has a file of its own there"
            )
            raise ValueError(message)


def command_prefix() -> list[str]:
    """Return the command line of this process without the program's arguments."""
    arguments = sys.argv[1:]
    count = len(arguments)
    if count and sys.orig_argv[-count:] != arguments:
        return list(sys.orig_argv)  # the program changed sys.argv, so its arguments cannot be told apart
    return sys.orig_argv[: len(sys.orig_argv) - count]


def apply(request: Request, prefix: Sequence[str]) -> None:
    """
    Apply the arguments, environment and process attributes of a request to this process.

    Args:
        request: What the restoring side asks for.
        prefix: The command line without the program's arguments.

    Raises:
        OSError: The working directory cannot be entered.
    """
    argv, env, cwd, umask, *_, pgid, ignored, limits, _, _, blocked, executable = request
    arguments = [*map(os.fsdecode, argv)]
    if executable:
        prefix = [executable]
        sys.executable = executable
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


def _replace_environment(env: Mapping[bytes, bytes]) -> None:
    variables = own_variables.with_changes(env)
    # One call for all: putenv() searches the whole environment each time, which is slow with 10,000 variables.
    this_process.replace_environ(variables)
    # Keep the old variables alive: freeing them would dirty the shared pages that hold them.
    _replaced.append(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001
    os.environ._data = os.environb._data = variables  # type: ignore[attr-defined]  # noqa: SLF001


_replaced: list[object] = []


def _join_group(pgid: int | None) -> None:
    """Join the launcher's process group, so that signals from the terminal arrive."""
    if pgid is None or os.getpgrp() == pgid or os.getsid(0) == os.getpid():
        return
    try:
        os.setpgid(0, pgid)
    except PermissionError:
        return  # the group is in another session or pid namespace: there is no terminal to share


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
    """Block signals in this thread, and in those it starts, beside the ones that the program has blocked."""
    if signals:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def _limit(limits: Mapping[int, tuple[int, int]]) -> None:
    """Apply resource limits as far as permitted: a hard limit can only be lowered."""
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
    """Set LC_CTYPE from the environment, as Python does when it starts (PEP 538 for the C locale)."""
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
    # Otherwise Python would start in UTF-8 mode (PEP 540). That mode cannot be entered later, but UTF-8 is set anyway.


def _sets_ctype(name: str) -> bool:
    """Set LC_CTYPE; return False if there is no such locale."""
    try:
        _locale.setlocale(_locale.LC_CTYPE, name)
    except _LocaleError:
        return False
    return True
