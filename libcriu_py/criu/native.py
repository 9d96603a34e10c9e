"""
The only caller of libcriu.

How an operation goes through C:

1. `NativeOptions` builds a fresh `criu_opts` from option names and values:
   libcriu's string setters leak when called twice.
2. `spawn_service` starts criu on a socket pair, and libcriu is given our end.
   libcriu can start criu itself, but forks the whole process, loses the errno of
   a failed exec, waits for an uninitialised pid when the fork fails, and leaves
   a zombie in the tree of a self-dump.  Only `restore_child` must be
   left to it, as nothing else makes the restored process our child.
3. `run` calls `lcp_call`, which blocks all signals of the thread (libcriu does
   not retry after EINTR), releases the GIL and brings back result and errno.
   One lock is held around it: libcriu keeps errno and more in statics.
4. A callback arrives without a user pointer.  It finds its operation in
   `_current`, which the lock makes unambiguous, stores an exception there and
   returns -ECANCELED, which libcriu returns.  `run` raises it again.
"""

from __future__ import annotations

import _thread
import errno
import os

from libcriu_py.criu.names import ADDED_IN, ADDERS, SETTERS
from libcriu_py.errors import BinaryNotFound, CriuError, TransportError, UnsupportedFeature
from libcriu_py.linux.ffi import ffi, lib, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from libcriu_py._libcriu import CData

    Arguments = Sequence[object]

_LAST_STANDARD_FD = 2
_MAY_BE_NONE = {("cgroup_roots", 0), ("join_ns", 2)}
"""Where libcriu takes a null pointer: arguments of options, by their position."""

_lock = _thread.allocate_lock()
_current: Call | None = None


def _forget_after_fork() -> None:
    # The thread that held the lock does not exist in the child.
    global _lock, _current
    _lock = _thread.allocate_lock()
    _current = None


os.register_at_fork(after_in_child=_forget_after_fork)

leave_call = _forget_after_fork
"""Forget the call that dumped this process, in a copy whose program runs before that returns."""


def built_prefix() -> str:
    """Return the prefix of the CRIU that the extension was built against; empty if unknown."""
    return text(lib.LCP_PREFIX)


def function(name: str) -> Callable[..., int | None]:
    """
    Return a function of libcriu by its C name.

    Raises:
        UnsupportedFeature: The libcriu that the extension was built against lacks it.
    """
    found: Callable[..., int | None] | None = getattr(lib, name, None)
    if found is None:
        version = ADDED_IN.get(name, "of a newer release")
        message = f"{name} needs CRIU {version} or newer at build time; rebuild libcriu_py against it"
        raise UnsupportedFeature(message)
    return found


class NativeOptions:
    """
    The options of one operation as a `criu_opts`.

    A context manager that yields the `criu_opts *`, and frees it.

    Attributes:
        opts: The `criu_opts *`.
        child: The `struct lcp_child *` with environment and descriptors of the criu process.
        binary: The criu program.
    """

    def __init__(
        self,
        values: Mapping[str, object],
        binary: str | None,
        env: Mapping[str, str | None] | None = None,
        output_fd: int = -1,
    ) -> None:
        self.opts: CData = ffi.NULL
        self.binary = binary
        self._fds: list[int] = []
        keep: list[int] = []
        holder = ffi.new("criu_opts **")
        if lib.criu_local_init_opts(holder) != 0:
            raise MemoryError
        self.opts = holder[0]
        try:
            if binary is not None:
                _accepted("service_binary", lib.criu_local_set_service_binary(self.opts, os.fsencode(binary)))
            for name, value in values.items():
                if value is not None and name != "config":
                    self._apply(name, value, keep)
            config_fd = _config_file(values.get("config"))
            if config_fd is not None:
                self._fds.append(config_fd)
                keep.append(config_fd)
                env = {**(env or {}), "CRIU_CONFIG_FILE": f"/proc/self/fd/{config_fd}"}
            self._keep = ffi.new("int[]", keep)
            self._environment, self._strings = _environment(env)
            self.child = ffi.new("struct lcp_child *", (self._environment, self._keep, len(keep), output_fd))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CData:
        return self.opts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the options and close what was opened for them.  A second call does nothing."""
        opts, self.opts = self.opts, ffi.NULL
        lib.criu_local_free_opts(opts)
        self.close_fds()

    def close_fds(self) -> None:
        """Close the descriptors that only the criu process needs, after it has started."""
        while self._fds:
            os.close(self._fds.pop())

    def apply(self, name: str, value: object) -> None:
        """Set an option of a running operation."""
        self._apply(name, value, [])

    def _apply(self, name: str, value: object, keep: list[int]) -> None:
        if name == "exec_cmd":
            self._set_exec_cmd(value)  # type: ignore[arg-type]
        elif name in ADDERS:
            add = function(ADDERS[name])
            for item in value:  # type: ignore[attr-defined]
                arguments = item if isinstance(item, tuple) else (item,)
                if name == "inherit_fds" and arguments and isinstance(arguments[0], int):
                    arguments = (self._inheritable(arguments[0]), *arguments[1:])
                    keep.append(arguments[0])
                _accepted(name, add(self.opts, *_arguments(name, arguments)))
        elif name in SETTERS:
            arguments = value if isinstance(value, tuple) else (value,)
            result = function(SETTERS[name])(self.opts, *_arguments(name, arguments))
            # Before CRIU 4.3 this one returns -ENOMEM whatever happens (lib/c/criu.c).
            _accepted(name, 0 if name == "page_server" else result)
        else:
            message = f"there is no CRIU option {name!r}"
            raise TypeError(message)

    def _set_exec_cmd(self, command: Sequence[str]) -> None:
        strings = [ffi.new("char[]", word) for word in _arguments("exec_cmd", command)]
        _accepted("exec_cmd", lib.criu_local_set_exec_cmd(self.opts, len(strings), ffi.new("char *[]", strings)))

    def _inheritable(self, fd: int) -> int:
        # criu uses descriptors 0 to 2 itself, so that it could not hand them over.
        if fd > _LAST_STANDARD_FD:
            return fd
        import fcntl

        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LAST_STANDARD_FD + 1)
        self._fds.append(moved)
        return moved


class Call:
    """
    A running operation.

    Attributes:
        native: Its options.
        on_notify: Called with the action, a pid or None, and a descriptor or None.
        on_more: Called after each pre-dump of `dump_iters`; returns whether to pre-dump again.
        error: The exception that a callback raised.
    """

    def __init__(
        self,
        native: NativeOptions,
        on_notify: Callable[[str, int | None, int | None], object] | None = None,
        on_more: Callable[[], bool] | None = None,
    ) -> None:
        self.native = native
        self.on_notify = on_notify
        self.on_more = on_more
        self.error: BaseException | None = None
        self.thread = _thread.get_ident()

    def run(self, operation: int, features: CData | None = None) -> tuple[int, int]:
        """
        Run an operation of libcriu.

        Args:
            operation: One of the LCP_ constants.
            features: The `struct criu_feature_check *` for LCP_FEATURES.

        Returns:
            What libcriu returned, and errno.

        Raises:
            CriuError: The caller is a callback of another operation.
            BaseException: A callback of this operation raised it.
        """
        global _current
        refuse_nested()
        error = ffi.new("int *")
        with _lock:
            if self.on_notify is not None:
                lib.criu_local_set_notify_cb(self.native.opts, lib.lcp_notify)
            _current = self
            try:
                result = lib.lcp_call(operation, self.native.opts, self.native.child, features or ffi.NULL, error)
            finally:
                _current = None
        if self.error is not None:
            raise self.error
        return result, error[0]


def refuse_nested() -> None:
    """Raise CriuError in a callback of libcriu, where waiting for the lock would never end."""
    if _current is not None and _current.thread == _thread.get_ident():
        message = "libcriu cannot run an operation from a callback of another one"
        raise CriuError(message)


def spawn_service(native: NativeOptions, *, detached: bool, limit: float = 0) -> tuple[int, int]:
    """
    Start criu for one operation and make libcriu talk to it.

    Args:
        native: The options of the operation.
        detached: Whether to keep criu out of our process tree, for a self-dump, which ends after `dump_limit`.
        limit: Seconds to wait for an answer of one that is not detached; 0: no limit.

    Returns:
        Our end of the connection, which libcriu closes, and the pid for `reap_service`; 0 if detached.

    Raises:
        BinaryNotFound: The program does not exist.
        TransportError: It cannot be started.
    """
    refuse_nested()
    pid = ffi.new("int *")
    with _lock:
        fd = lib.lcp_spawn_service(os.fsencode(native.binary or ""), native.child, detached, int(limit * 1000), pid)
    native.close_fds()
    if fd < 0:
        message = f"cannot start {native.binary}: {os.strerror(-fd)}"
        if -fd in {errno.ENOENT, errno.ENOTDIR}:
            raise BinaryNotFound(message)
        if -fd == errno.EPERM:
            message += "; it may carry file capabilities that are not in the bounding set of this process"
        raise TransportError(message)
    use_service_fd(native, fd)
    return fd, pid[0]


def use_service_fd(native: NativeOptions, fd: int) -> None:
    """Make libcriu use a connection, which it closes after the operation."""
    lib.criu_local_set_service_fd(native.opts, fd)


def dump_limit() -> float:
    """Return how many seconds criu may take to dump this process."""
    return float(lib.lcp_dump_limit(os.getpid())) / 1000


def reap_service(pid: int, *, stuck: bool = False) -> int | None:
    """
    Wait for a criu that `spawn_service` started.

    Args:
        pid: What that returned.
        stuck: Whether it has not answered in time, and is to be killed first.

    Returns:
        Its wait status; None if it was detached, or somebody else has reaped it.
    """
    if not pid:
        return None
    if stuck:
        lib.lcp_kill_tree(pid)
    status = lib.lcp_reap_service(pid)
    return None if status < 0 else status


def feature_request() -> tuple[CData, list[str]]:
    """Return a `struct criu_feature_check *` that asks for everything, and the names of its members."""
    features = ffi.new("struct criu_feature_check *")
    names = [name for name, _ in ffi.typeof("struct criu_feature_check").fields or ()]
    for name in names:
        setattr(features, name, True)
    return features, names


@ffi.def_extern(error=-errno.ECANCELED)  # type: ignore[untyped-decorator, func-returns-value, misc]
def lcp_notify(action: CData, argument: CData) -> int:
    """Pass a notification from criu to the running operation."""
    call = _current
    if call is None or call.on_notify is None:
        return 0
    try:
        name = text(action)
        fd = lib.criu_get_orphan_pts_master_fd() if name == "orphan-pts-master" else -1
        call.on_notify(name, lib.criu_notify_pid(argument) or None, fd if fd >= 0 else None)
    except BaseException as error:  # noqa: BLE001 - nothing may unwind through libcriu; run() raises it
        call.error = error
        return -errno.ECANCELED
    return 0


@ffi.def_extern(error=-errno.ECANCELED)  # type: ignore[untyped-decorator, func-returns-value, misc]
def lcp_more(_info: CData) -> int:
    """Ask the running operation whether to pre-dump again."""
    call = _current
    if call is None or call.on_more is None:
        return 0
    try:
        return int(call.on_more())
    except BaseException as error:  # noqa: BLE001 - nothing may unwind through libcriu; run() raises it
        call.error = error
        return -errno.ECANCELED


def _arguments(name: str, values: Iterable[object]) -> list[object]:
    """Convert what goes into one call of libcriu, which dereferences every pointer but a few."""
    arguments: list[object] = []
    for position, value in enumerate(values):
        if value is not None:
            arguments.append(_argument(value))
        elif (name, position) in _MAY_BE_NONE:
            arguments.append(ffi.NULL)
        else:
            message = f"{name} cannot have None in it"
            raise TypeError(message)
    return arguments


def _argument(value: object) -> object:
    if isinstance(value, int):
        return int(value)
    text = os.fsencode(value)  # type: ignore[arg-type]
    if b"\0" in text:
        message = f"embedded NUL in {value!r}"
        raise ValueError(message)
    return text


def _accepted(name: str, result: int | None) -> None:
    if result in {None, 0}:
        return
    if result == -errno.ENOMEM:
        raise MemoryError
    message = f"libcriu does not accept this value of {name} (or not over this connection)"
    raise ValueError(message)


def _config_file(config: object) -> int | None:
    if not config:
        return None
    fd = os.memfd_create("criu.conf", os.MFD_CLOEXEC)
    try:
        os.write(fd, str(config).encode("utf-8", "surrogateescape"))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _environment(env: Mapping[str, str | None] | None) -> tuple[CData, list[CData]]:
    if not env:
        return ffi.NULL, []
    merged = {**os.environb, **{os.fsencode(name): value for name, value in env.items()}}
    given = {name: os.fsencode(value) for name, value in merged.items() if value is not None}
    strings = [ffi.new("char[]", name + b"=" + value) for name, value in given.items()]
    return ffi.new("char *[]", [*strings, ffi.NULL]), strings
