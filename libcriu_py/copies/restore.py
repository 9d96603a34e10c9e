"""
Restoring a snapshot as a process of one's own.

    arguments -> request -> order -> libcriu-py-run -> criu -> RestoredProcess

Nothing is written into the snapshot, so that any number of processes can be restored from it, also from a
read-only one. Nothing heavy is imported here: this is the path whose milliseconds count.
"""

from __future__ import annotations

import os
import time
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
    from collections.abc import Iterable, Mapping, Sequence

    from typing_extensions import Unpack

    from libcriu_py.program.main import Program
    from libcriu_py.settings import Argument, RestoreSettings, Stream
    from libcriu_py.snapshot.manifest import Snapshot


@overload
def restore(
    dir: str | os.PathLike[str] | Snapshot,
    argv: Sequence[Argument] = (),
    *,
    n: None = None,
    **settings: Unpack[RestoreSettings],
) -> RestoredProcess: ...


@overload
def restore(
    dir: str | os.PathLike[str] | Snapshot,
    argv: Sequence[Argument] = (),
    *,
    n: int,
    **settings: Unpack[RestoreSettings],
) -> list[RestoredProcess]: ...


def restore(  # noqa: PLR0913 - the parameters of subprocess.Popen
    dir: str | os.PathLike[str] | Snapshot,  # noqa: A002 - the name it has everywhere here
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
    mode: Privilege | str | None = None,
    isolate: bool = False,
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
        n: How many copies to restore at once, each with pipes of its own; None restores one, and gives no list.
        env: Its environment; None gives it ours.
        cwd: Its working directory; None gives it ours.
        stdin: As for `subprocess.Popen`: None (ours), PIPE, DEVNULL, a descriptor or a file.
        stdout: The same.
        stderr: The same, or STDOUT.
        pass_fds: Descriptors that it gets under the same numbers.
        wait_ready: Return only when its after-hooks are through.
        main: What it is to run instead of its own main program.
        mode: How it is allowed; None decides (see `Privilege`).
        isolate: Restore in a pid namespace also where the pids of the image look free.
        die_with_caller: Kill it when this process ends.
        standby: Take a copy that waits in a standby pool of this snapshot, where there is one; it needs
            `die_with_caller`.
        encoding: Of the pipes; None makes them binary.
        errors: How encoding errors are handled.

    Returns:
        The process, or with `n` a list of them.

    Raises:
        SnapshotError: `dir` is not a snapshot that can be restored here.
        SnapshotMismatch: Something is not as it was at the dump.
        OperationRefused: criu refused; nothing is left behind.
        UnsupportedFeature: There is no way to be allowed.
        RestoreError: The process ended before it was ready.
        ValueError: `n` is below 1.
    """
    settings: RestoreSettings = {
        "env": env,
        "cwd": cwd,
        "stdin": stdin,
        "stdout": stdout,
        "stderr": stderr,
        "pass_fds": pass_fds,
        "wait_ready": wait_ready,
        "main": main,
        "mode": mode,
        "isolate": isolate,
        "die_with_caller": die_with_caller,
        "standby": standby,
        "encoding": encoding,
        "errors": errors,
    }
    if n is None:
        return _restore_one(dir, argv, settings)
    if n < 1:
        message = f"n={n}: at least one copy must be restored"
        raise ValueError(message)
    return restore_many(dir, [argv] * n, **settings)


def restore_many(
    dir: str | os.PathLike[str] | Snapshot,  # noqa: A002 - the name it has everywhere here
    argvs: Iterable[Sequence[Argument]],
    *,
    at_once: int | None = None,
    **settings: Unpack[RestoreSettings],
) -> list[RestoredProcess]:
    """
    Restore one copy for each list of arguments; `restore(dir, argv, n=5)` gives all the same.

    Args:
        dir: The snapshot, or its directory.
        argvs: The arguments of each copy.
        at_once: How many restores are under way at a time; None means as many as there are processors.
        settings: The other arguments of `restore`, the same for all.

    Returns:
        The processes, in the order of `argvs`.

    Raises:
        CriuError: A restore failed; the other copies have been killed.
    """
    from concurrent.futures import ThreadPoolExecutor

    def one(argv: Sequence[Argument]) -> RestoredProcess:
        return restore(dir, argv, **settings)

    with ThreadPoolExecutor(at_once or os.cpu_count() or 1) as threads:
        started = [threads.submit(one, argv) for argv in argvs]
    errors = [error for error in (future.exception() for future in started) if error is not None]
    if not errors:
        return [future.result() for future in started]
    for future in started:
        if future.exception() is None:
            with future.result() as process:
                process.kill()
    raise errors[0]


def _restore_one(
    snapshot: str | os.PathLike[str] | Snapshot, argv: Sequence[Argument], settings: RestoreSettings
) -> RestoredProcess:
    directory = snapshot if isinstance(snapshot, (str, os.PathLike)) else snapshot.path
    pass_fds = list(settings["pass_fds"])
    check_count(pass_fds)
    streams, closed = _streams(settings["stdin"], settings["stdout"], settings["stderr"])
    request = make_request(
        os.path.realpath(directory), argv, env=settings["env"], cwd=settings["cwd"], main=settings["main"]
    )
    flags = order.ISOLATE if settings["isolate"] else 0
    if settings["die_with_caller"]:
        flags |= order.DIE_WITH_CALLER
        if settings["standby"] and not flags & order.ISOLATE:
            flags |= order.MAY_TAKE
    process = RestoredProcess(
        Order(
            directory,
            request._replace(closed=closed, pass_fds=pass_fds).encode(),
            mode=Privilege.of(settings["mode"]),
            flags=flags,
            pass_fds=pass_fds,
        ),
        [*map(os.fsdecode, argv)],
        streams=streams,
        encoding=settings["encoding"],
        errors=settings["errors"],
    )
    if settings["wait_ready"]:
        process.wait_ready()
    return process


def _streams(*wanted: Stream) -> tuple[list[Stream], list[int]]:
    """Return the streams for `Popen`, ours by number, which makes them inheritable, and those that are closed here."""
    closed = [number for number, stream in enumerate(wanted) if stream is None and not _is_open(number)]
    streams = [number if stream is None and number not in closed else stream for number, stream in enumerate(wanted)]
    if streams[2] == STDOUT and wanted[1] is None:
        streams[2] = DEVNULL if 1 in closed else 1  # `Popen` would ask sys.stdout
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
    """Describe what a restored process is to be given; what is not said is as in this process."""
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
