"""
Restoring a snapshot as a process of one's own.

    snapshot, mode -> place -> request and slots -> supervisor -> criu -> RestoredProcess

Nothing is written into the snapshot, so that any number of processes can be restored from it, also from a
read-only one. Nothing heavy is imported here: this is the path whose milliseconds count.
"""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING, overload

from libcriu_py.copies.process import RestoredProcess
from libcriu_py.copies.standby.taking import Launched, pid_of, take
from libcriu_py.copies.streams import Streams
from libcriu_py.criu.client import Criu
from libcriu_py.criu.find import find_criu
from libcriu_py.criu.log import refusal
from libcriu_py.errors import OperationRefused, RestoreError, SnapshotMismatch
from libcriu_py.linux import support
from libcriu_py.linux.runtime_dir import LOG_NAME, WorkDirectory, criu_environment
from libcriu_py.privilege import namespaces as namespace
from libcriu_py.privilege.decision import decide, namespaces_failed
from libcriu_py.snapshot.manifest import SLOTS, Snapshot
from libcriu_py.snapshot.request import (
    Request,
    blocked_signals,
    check_count,
    current_limits,
    ignored_signals,
    send_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.privilege.namespaces import Place
    from libcriu_py.program.main import Program
    from libcriu_py.settings import Argument, RestoreSettings, Stream

_LOG_LEVEL = 2  # warnings: hints need some of them


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
        return _restore_one(dir if isinstance(dir, Snapshot) else Snapshot.open(dir), argv, settings)
    if n < 1:
        message = f"n={n}: at least one copy must be restored"
        raise ValueError(message)
    from libcriu_py.copies.many import restore_many

    return restore_many(dir, [argv] * n, **settings)


def restore_in_place(
    snapshot: Snapshot,
    argv: Sequence[Argument],
    *,
    main: Program | None,
    mode: Privilege | str | None,
    inherited: Sequence[int],
    blocked: Sequence[int],
) -> RestoredProcess:
    """
    Restore a snapshot as the program that this process was started to be.

    Args:
        snapshot: The snapshot.
        argv: Arguments of the program.
        main: As for `restore`.
        mode: As for `restore`.
        inherited: Descriptors above 2 that this process was started with, and the program is to be.
        blocked: Signals that were blocked then.

    Returns:
        The process, which ends with this one; what it raises is as for `restore`.
    """
    settings: RestoreSettings = {
        "env": None,
        "cwd": None,
        "stdin": None,
        "stdout": None,
        "stderr": None,
        "pass_fds": (),
        "wait_ready": False,
        "main": main,
        "mode": mode,
        "isolate": False,
        "die_with_caller": True,
        "standby": True,
        "encoding": None,
        "errors": None,
    }
    return _restore_one(snapshot, argv, settings, inherited, blocked)


def _restore_one(
    snapshot: Snapshot,
    argv: Sequence[Argument],
    settings: RestoreSettings,
    inherited: Sequence[int] = (),
    blocked: Sequence[int] | None = None,
) -> RestoredProcess:
    refuse_mismatches(snapshot)
    streams = Streams(settings["stdin"], settings["stdout"], settings["stderr"])
    try:
        request = make_request(snapshot, argv, env=settings["env"], cwd=settings["cwd"], main=settings["main"])
        request = request._replace(
            closed=streams.closed, pass_fds=list(settings["pass_fds"]), inherited=list(inherited)
        )
        if blocked is not None:
            request = request._replace(blocked=list(blocked))
        may_take = settings["standby"] and settings["die_with_caller"] and not settings["isolate"]
        taken = take(snapshot, request, streams.given, settings) if may_take else None
        launched = taken or launch(
            snapshot,
            request,
            streams.given,
            pass_fds=settings["pass_fds"],
            mode=settings["mode"],
            isolate=settings["isolate"],
            flags=support.DIE_WITH_CALLER if settings["die_with_caller"] else 0,
        )
    except BaseException:
        streams.close()
        raise
    streams.close_given()
    process = RestoredProcess(
        args=[*snapshot.command, *map(os.fsdecode, argv)],
        channel=launched.channel,
        control=launched.control,
        pidfd=launched.pidfd,
        pid=launched.pid,
        supervisor=launched.supervisor,
        pipes=streams.files(settings["encoding"], settings["errors"]),
    )
    if settings["wait_ready"]:
        process.wait_ready()
    return process


def refuse_mismatches(snapshot: Snapshot) -> None:
    """
    Refuse a snapshot whose restore would fail or not be sound.

    Raises:
        SnapshotMismatch: With every reason.
    """
    reasons = [mismatch.text for mismatch in snapshot.check() if mismatch.fatal]
    if reasons:
        more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
        message = f"{snapshot.path} cannot be restored here: {'; '.join(reasons[:3])}{more}"
        raise SnapshotMismatch(message)


def make_request(
    snapshot: Snapshot,
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
        snapshot=snapshot.path,
        main=main,
        pgid=os.getpgrp(),
        ignored=ignored_signals(),
        limits=current_limits(),
        schedule=support.schedule() or (0, 0, 0),
        blocked=blocked_signals(),
    )


def launch(
    snapshot: Snapshot,
    request: Request,
    stdio: Sequence[int],
    *,
    pass_fds: Sequence[int] = (),
    mode: Privilege | str | None = None,
    isolate: bool = False,
    flags: int = 0,
) -> Launched:
    """
    Restore a snapshot for a request.

    Args:
        snapshot: What to restore.
        request: What to hand over.
        stdio: Three descriptors above 2.
        pass_fds: The descriptors that belong to `request.pass_fds`.
        mode: How it is allowed.
        isolate: Whether a pid namespace is wanted in any case.
        flags: Of the supervisor.

    Returns:
        The descriptors of the restored process.

    Raises:
        OperationRefused: criu refused.
        RestoreError: The place for the restore could not be made.
    """
    check_count(pass_fds, request.inherited)
    launched = bring_up(snapshot, stdio, mode=mode, isolate=isolate, flags=flags)
    # Last of all: whoever is killed from here on leaves nothing that he would have had to clear away.
    send_request(launched.control, request, pass_fds)
    return launched


def bring_up(
    snapshot: Snapshot,
    stdio: Sequence[int],
    *,
    mode: Privilege | str | None = None,
    isolate: bool = False,
    flags: int = 0,
) -> Launched:
    """
    Restore a snapshot as a process that waits for its request; the arguments are those of `launch`.

    Returns:
        The descriptors of the restored process.

    Raises:
        OperationRefused: criu refused.
        RestoreError: The place for the restore could not be made.
    """
    plain = find_criu()
    decision = decide(mode, criu=plain, manifest=snapshot.manifest)
    control, slot = support.socketpair()
    try:
        for attempt in (isolate, True):
            place = namespace.place_of_restore(decision.mode, snapshot.manifest, plain, isolate=attempt)
            criu = Criu(plain if place.is_rootless else decision.criu)
            try:
                channel, *pids = _restore_at(place, snapshot, criu, [*stdio, slot], flags)
            except OperationRefused as error:
                # A pid that was taken meanwhile: in a namespace of its own it is free.
                if not _is_about_a_pid(error) or place.has_own_pids or attempt:
                    raise
                continue
            return Launched(channel, control, *pids)
    except BaseException:
        os.close(control)
        raise
    finally:
        os.close(slot)
    message = "not reached: the second attempt returns or raises"
    raise AssertionError(message)


def _is_about_a_pid(error: OperationRefused) -> bool:
    """Return whether a pid was in use: criu reports EEXIST for the first process of a tree, and a line for others."""
    return error.errno == errno.EEXIST or "File exists" in error.reason


def _restore_at(
    place: Place, snapshot: Snapshot, criu: Criu, slots: Sequence[int], flags: int
) -> tuple[int, int, int, int]:
    """Restore in a place; returns the channel, the pidfd, the pid and the supervisor's."""
    keys = [snapshot.manifest["slots"][name] for name in SLOTS]
    images = os.open(snapshot.images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    inherited = [images]
    try:
        inherit = [*zip(slots, keys, strict=True), (images, snapshot.manifest["images_key"])]
        for part in snapshot.memory_files:
            inherited.append(snapshot.open_memory(part))
            inherit.append((inherited[-1], part["key"]))
        with WorkDirectory() as work:
            options: dict[str, object] = {
                "images_dir": images,
                "work_dir": work.path,
                "log_file": LOG_NAME,
                "log_level": _LOG_LEVEL,
                "unprivileged": True,
                "shell_job": True,
                "inherit_fds": inherit,
                **snapshot.manifest.get("restore_options", {}),
            }
            with criu.native_options(options) as native:
                channel = support.supervise(
                    namespaces=place.namespaces,
                    flags=flags,
                    ambient=place.ambient,
                    last_pid=place.last_pid,
                    clocks=_clocks(snapshot),
                    inherit=[*slots, *inherited],
                    restore=native,
                    env=criu_environment(criu.binary or ""),
                )
            try:
                return channel, *_await_start(channel, work.log)
            except BaseException:
                os.close(channel)
                raise
    finally:
        for fd in inherited:
            os.close(fd)


def _clocks(snapshot: Snapshot) -> tuple[int, int]:
    """Return the readings from which the monotonic clocks of the process are to go on."""
    noted = snapshot.manifest.get("clocks") or {}
    return noted.get("monotonic", 0), noted.get("boottime", 0)


def _await_start(channel: int, log: str) -> tuple[int, int, int]:
    """Wait until the process runs, and return its pidfd, its pid and that of its supervisor."""
    try:
        event, supervisor = support.first_news(channel)
    except BrokenPipeError:
        message = "the supervisor of the restore was killed before it could restore anything"
        raise RestoreError(message) from None
    if event.kind == support.STARTED and event.pidfd is not None:
        return event.pidfd, pid_of(event.pidfd) or event.value, supervisor
    if supervisor:
        support.reap(supervisor, wait=True)
    if event.stage == support.STAGE_RESTORE:
        refused = refusal("restore", event.value, event.error, log if os.path.exists(log) else None)
        refused.forget_log()  # it is removed with its directory
        raise refused
    if event.stage in support.STAGES_OF_NAMESPACES:
        raise namespaces_failed(event.error, event.stage)
    message = f"{support.STAGES.get(event.stage, 'starting')} for the restore failed: {os.strerror(event.error)}"
    raise RestoreError(message)
