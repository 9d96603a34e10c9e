"""
Restore a snapshot as a new process.

    arguments -> request -> order -> libcriu-py-run -> criu -> RestoredProcess

A restore writes nothing into the snapshot, so it can be read-only, and restored any number of times. Every millisecond
counts on this path, so nothing heavy is imported here.
"""

from __future__ import annotations

import os
import time
from functools import partial
from subprocess import DEVNULL, PIPE, STDOUT
from typing import TYPE_CHECKING, overload

from libcriu_py.copies import order
from libcriu_py.copies.order import Order
from libcriu_py.copies.process import RestoredProcess
from libcriu_py.linux import this_process
from libcriu_py.privilege.mode import Privilege
from libcriu_py.snapshot.request import Request, blocked_signals, check_count, current_limits, ignored_signals

__all__ = ["DEVNULL", "PIPE", "STDOUT", "restore"]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from typing_extensions import Unpack

    from libcriu_py.program.main import Program
    from libcriu_py.settings import Argument, RestoreEngine, RestoreSettings, Stream, Verify
    from libcriu_py.snapshot.manifest import Snapshot

    SnapshotOrPath = str | os.PathLike[str] | Snapshot


@overload
def restore(
    dir: SnapshotOrPath, argv: Sequence[Argument] = (), *, n: None = None, **settings: Unpack[RestoreSettings]
) -> RestoredProcess: ...


@overload
def restore(
    dir: SnapshotOrPath, argv: Sequence[Argument] = (), *, n: int, **settings: Unpack[RestoreSettings]
) -> list[RestoredProcess]: ...


def restore(  # noqa: PLR0913 - the parameters of subprocess.Popen
    dir: SnapshotOrPath,  # noqa: A002 - its name throughout this package
    argv: Sequence[Argument] = (),
    *,
    n: int | None = None,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    pass_fds: Sequence[int] = (),
    wait_ready: bool = False,
    main: Program | None = None,
    engine: RestoreEngine = "auto",
    mode: Privilege | str | None = None,
    isolate: bool = False,
    verify: Verify | None = None,
    die_with_caller: bool = False,
    standby: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
) -> RestoredProcess | list[RestoredProcess]:
    """
    Restore a snapshot, with arguments, environment and stdio of its own.

    Args:
        dir: The snapshot, or its directory.
        argv: Arguments of the program, without its name.
        n: How many copies to restore at once, each with its own pipes; None restores one and returns it by itself.
        env: Its environment; None means ours.
        cwd: Its working directory; None means ours.
        stdin: As for `subprocess.Popen`: None (ours), PIPE, DEVNULL, a descriptor or a file.
        stdout: The same.
        stderr: The same, or STDOUT.
        pass_fds: Descriptors that it gets under the same numbers.
        wait_ready: Return only after its after-hooks have run.
        main: What it runs instead of its own main program.
        engine: The engine that the snapshot must be of, "native" or "criu"; "auto" takes either, unless
            `LIBCRIU_PY_ENGINE` names one.
        mode: Privilege mode of criu; None picks the first that works (see `Privilege`). Native copies need none.
        isolate: Use a pid namespace even if the pids of the image look free. A native copy has a pid of its own anyway.
        verify: When large files of the snapshot are compared with their sums: "arrival", by what brought them; "once",
            on each machine and boot; "always". None means `LIBCRIU_PY_VERIFY`, else "arrival".
        die_with_caller: Kill it when this process ends.
        standby: Take a copy from a standby pool of this snapshot, if there is one; needs `die_with_caller`.
        encoding: Of the pipes; None makes them binary.
        errors: How encoding errors are handled.

    Returns:
        The process, or with `n` a list of them.

    Raises:
        SnapshotError: `dir` is not a snapshot that can be restored here.
        SnapshotMismatch: Something differs from the time of the dump.
        OperationRefused: criu refused; nothing is left behind.
        UnsupportedFeature: No privilege mode works here.
        RestoreError: The process ended before it was ready.
        ValueError: `n` is below 1.
    """
    if n is not None and n < 1:
        message = f"n={n}: at least one copy must be restored"
        raise ValueError(message)
    pass_fds = list(pass_fds)
    check_count(pass_fds)
    directory = dir if isinstance(dir, (str, os.PathLike)) else dir.path
    flags = (order.ISOLATE if isolate else 0) | order.verify_flag(verify) | order.engine_flag(engine)
    if die_with_caller:
        flags |= order.DIE_WITH_CALLER
        if standby and not isolate:
            flags |= order.MAY_TAKE

    def start() -> RestoredProcess:
        streams, closed = _streams(stdin, stdout, stderr)
        request = make_request(os.path.realpath(directory), argv, env=env, cwd=cwd, main=main)
        request = request._replace(closed=closed, pass_fds=pass_fds)
        process = RestoredProcess(
            Order(directory, request.encode(), mode=Privilege.of(mode), flags=flags, pass_fds=pass_fds),
            [*map(os.fsdecode, argv)],
            streams=streams,
            encoding=encoding,
            errors=errors,
        )
        if wait_ready:
            process.wait_ready()
        return process

    return start() if n is None else _start_all([start] * n)


def restore_many(
    dir: SnapshotOrPath,  # noqa: A002 - its name throughout this package
    argvs: Iterable[Sequence[Argument]],
    *,
    at_once: int | None = None,
    **settings: Unpack[RestoreSettings],
) -> list[RestoredProcess]:
    """
    Restore one copy for each list of arguments; `restore(dir, argv, n=5)` restores copies with the same arguments.

    Args:
        dir: The snapshot, or its directory.
        argvs: The arguments of each copy.
        at_once: How many restores run at a time; None means one per processor.
        settings: The other arguments of `restore`, the same for all copies.

    Returns:
        The processes, in the order of `argvs`.

    Raises:
        CriuError: A restore failed; the other copies have been killed.
    """
    return _start_all([partial(restore, dir, argv, **settings) for argv in argvs], at_once)


def _start_all(starts: Sequence[Callable[[], RestoredProcess]], at_once: int | None = None) -> list[RestoredProcess]:
    """Make all calls in threads; if one fails, kill what the others have started."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(at_once or os.cpu_count() or 1) as threads:
        started = [threads.submit(start) for start in starts]
    errors = [error for error in (future.exception() for future in started) if error is not None]
    if not errors:
        return [future.result() for future in started]
    for future in started:
        if future.exception() is None:
            with future.result() as process:
                process.kill()
    raise errors[0]


def _streams(*wanted: Stream) -> tuple[list[Stream], list[int]]:
    """Return the streams for `Popen`, ours by number to make them inheritable, and the numbers of our closed ones."""
    closed = [number for number, stream in enumerate(wanted) if stream is None and not _is_open(number)]
    streams = [number if stream is None and number not in closed else stream for number, stream in enumerate(wanted)]
    if streams[2] == STDOUT and wanted[1] is None:
        streams[2] = DEVNULL if 1 in closed else 1  # `Popen` would use sys.stdout
    return streams, closed


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def make_request(
    snapshot: str,
    argv: Sequence[Argument],
    *,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None,
    cwd: str | os.PathLike[str] | None,
    main: Program | None,
) -> Request:
    """Describe the restored process; all but the arguments is as in this process by default."""
    variables = os.environb if env is None else env
    umask = os.umask(0o77)
    os.umask(umask)
    return Request(
        argv=[os.fsencode(item) for item in argv],
        env={os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
        cwd=os.getcwdb() if cwd is None else os.fsencode(os.path.abspath(cwd)),
        umask=umask,
        launched=time.time(),
        snapshot=snapshot,
        main=main,
        pgid=os.getpgrp(),
        ignored=ignored_signals(),
        limits=current_limits(),
        schedule=this_process.schedule() or (0, 0, 0),
        blocked=blocked_signals(),
    )
