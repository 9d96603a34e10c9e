"""
`Criu`: dump and restore any process.

Options are dataclasses of `libcriu_py.criu.options`, or mappings with the same names.
"""

from __future__ import annotations

import os
import time

from libcriu_py.criu import native
from libcriu_py.criu.call import Request
from libcriu_py.criu.find import find_criu, require_executable
from libcriu_py.criu.outcome import check, children, connect_service, finish, kill_and_reap
from libcriu_py.errors import OperationRefused, TransportError
from libcriu_py.linux.ffi import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from libcriu_py.criu.notify import Notification
    from libcriu_py.criu.options import (
        DumpOptions,
        DumpOutcome,
        Features,
        Iteration,
        Options,
        PreDumpOptions,
        RestoreOptions,
        Version,
    )

    Values = Mapping[str, object]
    Environment = Mapping[str, str | None]
    Notify = Callable[[Notification], object]

_NOT_FOR_A_SERVICE = ("config", "inherit_fds", "timeout")
"""Options that reach criu through its environment or descriptors, and so not a service."""


class Criu:
    """
    A criu program, or a criu that runs as a service.

    Without arguments, `find_criu` finds the program, which is started for each operation. Objects hold no resources and
    may be shared between threads; operations of a process run one after the other, because libcriu keeps global state.

    Args:
        binary: The criu program.
        service_address: The socket of a criu service, instead of a program.
        service_fd: A connection to a criu, instead of a program; it serves one operation, which closes it.

    Raises:
        BinaryNotFound: The program does not exist.
        ValueError: More than one of these is given.
    """

    answers_within = 30.0
    """Seconds that criu may take to answer a question about itself or the kernel, which takes milliseconds."""

    def __init__(
        self,
        binary: str | os.PathLike[str] | None = None,
        *,
        service_address: str | os.PathLike[str] | None = None,
        service_fd: int | None = None,
    ) -> None:
        if sum(way is not None for way in (binary, service_address, service_fd)) > 1:
            message = "give one of binary, service_address and service_fd"
            raise ValueError(message)
        self._service_address = None if service_address is None else os.fspath(service_address)
        self._service_fd = service_fd
        self._binary: str | None = None
        if service_address is None and service_fd is None:
            self._binary = find_criu() if binary is None else require_executable(os.fspath(binary))

    def __repr__(self) -> str:
        way = self._binary or self._service_address or "on a socket"
        return f"<Criu {way}>"

    @property
    def binary(self) -> str | None:
        """The path of the criu program; None for a service."""
        return self._binary

    def dump(
        self,
        options: DumpOptions | Values,
        *,
        env: Environment | None = None,
        notify: Notify | None = None,
        before_wait: Callable[[], object] | None = None,
    ) -> DumpOutcome:
        """
        Dump a process tree, or the calling process.

        Without `pid` in the options, this process dumps itself: the call returns `RESTORED` in each restored copy, and
        `DUMPED` here if `leave_running` is set; else criu kills this process.

        Args:
            options: The options.
            env: Variables to set (None: remove) in the environment of criu.
            notify: Called at the stages of the dump.
            before_wait: Called when criu runs, before the request to dump.

        Returns:
            Whether this process was dumped or restored.

        Raises:
            OperationRefused: criu refused.
            TransportError: criu could not be started, or did not answer.
            ValueError: The options do not fit a dump.
        """
        from libcriu_py.criu.values import DumpOutcome

        request = self._request(options, env, capture=_value(options, "pid") is not None)
        with request:
            itself = _value(options, "pid") is None
            if itself:
                self._check_self_dump(notify)
            elif request.values.get("pid") == os.getpid():
                message = "leave pid out to dump the calling process: criu refuses a dump tree that it is in itself"
                raise ValueError(message)
            limit = native.dump_limit() if itself else 0
            result = self._run(
                "dump", lib.LCP_DUMP, request, notify, detached=itself, before_wait=before_wait, limit=limit
            )
            if itself and result:
                request.keep()
        return DumpOutcome.RESTORED if result else DumpOutcome.DUMPED

    def pre_dump(
        self, options: PreDumpOptions | Values, *, env: Environment | None = None, notify: Notify | None = None
    ) -> None:
        """
        Write the memory of a process tree, which keeps running.

        Args:
            options: The options; `pid` is required.
            env: Variables to set (None: remove) in the environment of criu.
            notify: Called at the stages of the pre-dump.

        Raises:
            OperationRefused: criu refused.
            TransportError: criu could not be started, or did not answer.
            ValueError: The options have no pid.
        """
        request = self._request(options, env, capture=True)
        with request:
            _require_pid("pre_dump", request)
            self._run("pre-dump", lib.LCP_PRE_DUMP, request, notify)

    def dump_iters(
        self,
        options: DumpOptions | Values,
        next_iteration: Callable[[int], Iteration],
        *,
        env: Environment | None = None,
        notify: Notify | None = None,
    ) -> None:
        """
        Pre-dump a process tree repeatedly, then dump it.

        Args:
            options: The options; `pid` is required, and `images_dir` is that of the first pre-dump.
            next_iteration: Called after each pre-dump with the number of pre-dumps so far; returns where the next step
                writes and whether that is the final dump.
            env: Variables to set (None: remove) in the environment of criu.
            notify: Called at the stages of all dumps.

        Raises:
            OperationRefused: criu refused.
            TransportError: criu could not be started, or did not answer.
            ValueError: The options have no pid.
        """
        request = self._request(options, env, capture=True)
        done = 0

        def more() -> bool:
            nonlocal done
            done += 1
            step = next_iteration(done)
            directory = request.open_directory(step.images_dir)
            request.native.apply("images_dir_fd", directory)
            request.native.apply("parent_images", step.parent_images)
            if request.values.get("work_dir") is None:
                request.watch_log(directory)
            return not step.final

        with request:
            _require_pid("dump_iters", request)
            self._run("dump", lib.LCP_DUMP_ITERS, request, notify, more=more)

    def restore(
        self, options: RestoreOptions | Values, *, env: Environment | None = None, notify: Notify | None = None
    ) -> int:
        """
        Restore a process tree whose parent becomes init or the nearest subreaper.

        Args:
            options: The options.
            env: Variables to set (None: remove) in the environment of criu.
            notify: Called at the stages of the restore.

        Returns:
            The pid of the root of the tree.

        Raises:
            OperationRefused: criu refused.
            TransportError: criu could not be started, or did not answer.
        """
        request = self._request(options, env, capture=True)
        with request:
            return self._run("restore", lib.LCP_RESTORE, request, notify)

    def restore_child(
        self, options: RestoreOptions | Values, *, env: Environment | None = None, notify: Notify | None = None
    ) -> int:
        """
        Restore a process tree as a child of the calling process.

        A failed restore leaves neither a process nor a zombie.

        Args:
            options: The options.
            env: Variables to set (None: remove) in the environment of criu.
            notify: Called at the stages of the restore.

        Returns:
            The pid of the child, which the caller must wait for.

        Raises:
            OperationRefused: criu refused.
            TransportError: criu could not be started, or did not answer.
            ValueError: This criu is a service, which cannot make our children.
        """
        if self._binary is None:
            message = "restore_child needs a criu program, not a service: only a child of ours can restore our children"
            raise ValueError(message)
        # libcriu starts this criu, and reports a missing program as a broken connection.
        require_executable(self._binary)
        request = self._request(options, env, capture=True)
        with request:
            before = children()
            try:
                return finish(self, "restore", request, *self._call(request, notify).run(lib.LCP_RESTORE_CHILD))
            except BaseException:
                kill_and_reap(children() - before)
                raise

    def check(self, *, unprivileged: bool | None = None) -> None:
        """
        Ask criu whether this kernel has what it needs.

        Args:
            unprivileged: Whether to check for CAP_CHECKPOINT_RESTORE alone; None does so except as root.

        Raises:
            BinaryNotFound: The program is gone.
            OperationRefused: Something is missing; the reason says what.
            TransportError: criu could not be started, or did not answer.
        """
        if self._binary is None:
            self._ask("check", lib.LCP_CHECK, unprivileged=False)
            return
        wanted = os.geteuid() != 0 if unprivileged is None else unprivileged
        check(self._binary, unprivileged=wanted)

    def version(self) -> Version:
        """
        Return the version of the criu program, which may differ from that of libcriu.

        Raises:
            TransportError: criu could not be started, or did not answer.
            VersionError: criu is older than 3.14, which cannot answer.
        """
        from libcriu_py.criu.values import Version

        number = self._ask("tell its version", lib.LCP_VERSION, unprivileged=False)
        return Version(number // 10000, number // 100 % 100, number % 100)

    def features(self, *, unprivileged: bool | None = None) -> Features:
        """
        Return which optional features criu, the kernel and the architecture have.

        Args:
            unprivileged: As for `check`.

        Raises:
            OperationRefused: criu cannot find out.
            TransportError: criu could not be started, or did not answer.
        """
        from libcriu_py.criu.values import Features

        request, names = native.feature_request()
        self._ask("tell its features", lib.LCP_FEATURES, unprivileged=unprivileged, features=request)
        return Features(**{name: bool(getattr(request, name)) for name in names if name in Features._fields})

    def native_options(self, options: Options | Values, env: Environment | None = None) -> Request:
        """
        Build the `criu_opts *` for C code that calls libcriu itself.

        Args:
            options: The options.
            env: Variables to set (None: remove) in the environment of criu.

        Returns:
            A context manager that yields the pointer. If the caller starts criu, `env` and `config` have no effect.
        """
        return self._request(options, env)

    def _ask(self, question: str, code: int, *, unprivileged: bool | None, features: object = None) -> int:
        if unprivileged is None:
            unprivileged = os.geteuid() != 0
        # criu ignores the options of these requests, but not those of its configuration file. A service has its own.
        options = {"config": {"unprivileged": True}} if unprivileged and self._binary else None
        request = Request(options, self._binary, None, capture=True)
        with request:
            return self._run(question, code, request, features=features, limit=self.answers_within)

    def _request(self, options: Options | Values, env: Environment | None, *, capture: bool = False) -> Request:
        if self._binary is None and (env or any(_value(options, name) for name in _NOT_FOR_A_SERVICE)):
            names = ", ".join(_NOT_FOR_A_SERVICE)
            message = f"env, {names} need a criu program that is started for the operation, not a service"
            raise ValueError(message)
        return Request(options, self._binary, env, capture=capture and self._binary is not None)

    def _check_self_dump(self, notify: Notify | None) -> None:
        if notify is not None:
            message = "a self-dump cannot have notify: the process is frozen while criu waits for its answer"
            raise ValueError(message)
        if os.getpid() == 1 and self._binary is not None:
            message = (
                "a process with pid 1 cannot dump itself, because criu would be its child; "
                "start the program under an init (docker run --init) or through a shell"
            )
            raise OperationRefused(message, operation="dump")

    def _call(self, request: Request, notify: Notify | None, more: Callable[[], bool] | None = None) -> native.Call:
        if notify is None:
            return native.Call(request.native, None, more)
        from libcriu_py.criu.notify import make_notification

        return native.Call(request.native, lambda *told: notify(make_notification(*told)), more)

    def _run(  # noqa: PLR0913 - what operations differ in
        self,
        operation: str,
        code: int,
        request: Request,
        notify: Notify | None = None,
        *,
        more: Callable[[], bool] | None = None,
        detached: bool = False,
        before_wait: Callable[[], object] | None = None,
        features: object = None,
        limit: float = 0,
    ) -> int:
        call = self._call(request, notify, more)
        begun = time.monotonic() - 0.002  # what watches criu counts from before it runs, and whole milliseconds
        fd, pid = self._connect(request, detached=detached, limit=limit)
        try:
            try:
                if before_wait is not None:
                    before_wait()
            except BaseException:
                os.close(fd)
                raise
            result, error = call.run(code, features)
        finally:
            late = 0 < limit <= time.monotonic() - begun
            status = native.reap_service(pid, stuck=late)
        return finish(self, operation, request, result, error, status, limit if late else None)

    def _connect(self, request: Request, *, detached: bool, limit: float) -> tuple[int, int]:
        if self._binary is not None:
            return native.spawn_service(request.native, detached=detached, limit=0 if detached else limit)
        fd = self._service_fd
        if fd is None:
            fd = connect_service(self._service_address or "")
        elif fd < 0:
            message = "this connection to criu has been used up by an earlier operation"
            raise TransportError(message)
        else:
            self._service_fd = -1
        native.use_service_fd(request.native, fd)
        return fd, 0


def _value(options: Options | Values, name: str) -> object:
    get = getattr(options, "get", None)
    return get(name) if get is not None else getattr(options, name, None)


def _require_pid(method: str, request: Request) -> None:
    if request.values.get("pid") in {None, os.getpid()}:
        message = f"{method} needs the pid of another process; a process can only dump itself, with dump()"
        raise ValueError(message)
