"""
Starting programs as their user would: restored where that is possible, conventionally elsewhere.

`run` behaves as the restored program does: it is its stand-in for the shell. Nothing heavy is
imported before the restore is on its way.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from libcriu_py.errors import CriuError, SnapshotError
from libcriu_py.linux import support

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.copies.process import RestoredProcess
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.program.main import Program
    from libcriu_py.snapshot.manifest import Snapshot

LAUNCHER_FAILED = 125
"""Exit status: the restore failed and there is no fallback."""
SNAPSHOT_UNUSABLE = 126
"""Exit status: the snapshot is refused or damaged and there is no fallback."""


def run(
    dir: str | os.PathLike[str],  # noqa: A002 - the name it has everywhere here
    args: Sequence[str],
    *,
    main: Program | None = None,
    mode: Privilege | str | None = None,
    fallback: bool = True,
    quiet: bool = False,
) -> int:
    """
    Be the program of a snapshot: restored, or started conventionally where that is impossible.

    Args:
        dir: The snapshot's directory.
        args: The program's arguments.
        main: What is to run instead of its main program.
        mode: How the restore is allowed; None decides.
        fallback: Whether it may be started conventionally.
        quiet: Whether nothing is said about that on stderr.

    Returns:
        LAUNCHER_FAILED or SNAPSHOT_UNUSABLE after one line on stderr. Otherwise it does not return: this
        process ends with the program's status, by its signal, or becomes the program.
    """
    from libcriu_py.errors import SnapshotMismatch
    from libcriu_py.program.start_variables import difference
    from libcriu_py.snapshot.manifest import Snapshot
    from libcriu_py.snapshot.request import inherited_descriptors

    inherited = inherited_descriptors()
    _open_missing_stdio()
    snapshot: Snapshot | None = None
    try:
        snapshot = Snapshot.open(dir)
        differs = difference(snapshot.manifest["python"].get("variables", {}), os.environ)
        if differs is not None:
            raise SnapshotMismatch(differs)
        reason, code = _try_restored(snapshot, args, main, mode, inherited)
    except SnapshotError as error:
        reason, code = str(error), SNAPSHOT_UNUSABLE
    except (CriuError, OSError, ValueError) as error:
        reason, code = str(error), LAUNCHER_FAILED
    command = _conventional(snapshot, dir, main) if fallback else None
    if command is None:
        _say(reason)
        return code
    if not quiet:
        _say(f"starting conventionally: {reason}")
    if snapshot is None or snapshot.program is None:
        # One that checkpoints itself is to do its work here, and not to make a snapshot anew.
        os.environ["LIBCRIU_PY_CONVENTIONAL"] = str(os.getpid())
    return _exec([*command, *args])


def _try_restored(
    snapshot: Snapshot,
    args: Sequence[str],
    main: Program | None,
    mode: Privilege | str | None,
    inherited: Sequence[int],
) -> tuple[str, int]:
    """Restore and be the program; returns only the reason why no code of the program has run."""
    from libcriu_py.copies.restore import restore_in_place

    # From the moment the program runs until `mirror` minds them, the terminal's signals must not stop or end us:
    # the shell would take the terminal back while the program still reads from it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        blocked = sorted(map(int, mask))
        process = restore_in_place(snapshot, args, main=main, mode=mode, inherited=inherited, blocked=blocked)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    own_session = process.from_pool or bool(snapshot.manifest.get("session_leader"))
    try:
        status = support.mirror(
            process.channel,
            process.pidfd,
            terminal=own_session,
            control=process.control,
            handed=inherited,
        )
    except BrokenPipeError:
        status = signal.SIGKILL
    ended_from_outside = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}
    if process.started or (os.WIFSIGNALED(status) and os.WTERMSIG(status) in ended_from_outside):
        _end_as(status)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return _what_went_wrong(process, status), LAUNCHER_FAILED


def _what_went_wrong(process: RestoredProcess, status: int) -> str:
    if process.handover_error is not None:
        return f"the restored process could not take over: {process.handover_error}"
    code = os.waitstatus_to_exitcode(status)
    how = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with status {code}"
    return f"the restored process ended {how} before the program could go on"


def _end_as(status: int) -> NoReturn:
    """End as the program did, by the same signal, or with its status."""
    if os.WIFSIGNALED(status):
        import resource

        number = os.WTERMSIG(status)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the core is the program's, not ours
        if number not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _open_missing_stdio() -> None:
    """
    Mark closed descriptors 0 to 2 as taken, or files opened from here on would get these numbers.

    They are closed again in the restored process: O_PATH tells `streams.is_closed` what they are.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open("/", os.O_PATH | os.O_CLOEXEC)


def _conventional(
    snapshot: Snapshot | None,
    dir: str | os.PathLike[str],  # noqa: A002
    main: Program | None,
) -> list[str] | None:
    """Return the conventional command line up to the arguments, as far as it is known."""
    command = snapshot.command if snapshot is not None else _command_of_damaged(dir)
    if command is None or main is None:
        return command
    return [command[0], *main.arguments()]


def _command_of_damaged(dir: str | os.PathLike[str]) -> list[str] | None:  # noqa: A002
    """
    Read the recorded command line of a snapshot that was refused, unless it is not ours.

    A command that somebody else may have written is not executed either.
    """
    import json

    from libcriu_py.errors import SnapshotUnsafe
    from libcriu_py.snapshot.manifest import MANIFEST, refuse_unsafe

    directory = os.path.realpath(os.fspath(dir))
    path = os.path.join(directory, MANIFEST)
    try:
        refuse_unsafe(directory)
        refuse_unsafe(path)
        with open(path, "rb") as file:
            command = json.load(file)["command"]
    except (OSError, ValueError, KeyError, TypeError, SnapshotUnsafe):
        return None
    return command if isinstance(command, list) and all(isinstance(item, str) for item in command) else None


def _exec(command: Sequence[str]) -> int:
    """Become a program, found as a shell would find it."""
    from libcriu_py.copies.streams import is_closed

    for fd in range(3):
        if is_closed(fd):
            os.close(fd)  # the placeholder
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them; a program expects the default
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        _say(f"{command[0]} cannot be started either: {error.strerror}")
    return LAUNCHER_FAILED


def _say(message: str) -> None:
    line = f"libcriu-py: {message}\n".encode(errors="backslashreplace")
    try:
        os.write(2, line)
    except OSError:
        return  # stderr is closed: nobody wants to know


# ---- snapshots -------------------------------------------------------------


def spawn_for_snapshot(argv: Sequence[str], *, env: Mapping[str, str], mode: Privilege | str | None = None) -> int:
    """
    Run a program where it may checkpoint itself, and wait for it.

    As root, or with a file-capable criu, that is right here; elsewhere a user, pid and mount
    namespace, whose supervisor serves the program a criu.

    Args:
        argv: The program, by its path, and its arguments.
        env: Its environment.
        mode: How the checkpoint is allowed; None decides.

    Returns:
        Its exit status, negative when a signal killed it.

    Raises:
        UnsupportedFeature: There is no way to be allowed.
        OSError: It could not be started.
    """
    from libcriu_py.criu.find import find_criu
    from libcriu_py.linux.runtime_dir import dump_environment, sweep
    from libcriu_py.privilege.decision import decide, namespaces_failed
    from libcriu_py.privilege.namespaces import avoid_low_pids, place_of_program

    sweep()
    decision = decide(mode, criu=find_criu())
    criu = decision.criu
    place = place_of_program(decision.mode)
    variables = {**env, "LIBCRIU_PY_MODE": decision.mode.value, "LIBCRIU_PY_CRIU": criu}
    variables.pop("LIBCRIU_PY_SERVICE", None)
    service = None
    if place.has_own_pids:
        service = support.CriuService(support.random_name(), criu, dump_environment(criu))
        variables["LIBCRIU_PY_SERVICE"] = service.name
    else:
        avoid_low_pids()
    sys.stdout.flush()
    channel = support.supervise(
        namespaces=place.namespaces,
        flags=support.DIE_WITH_CALLER,
        ambient=place.ambient,
        last_pid=place.last_pid,
        argv=[os.fsencode(item) for item in argv],
        env={os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
        service=service,
    )
    try:
        event, supervisor = support.first_news(channel)
        if event.pidfd is None:
            stage = support.STAGES.get(event.stage, "starting")
            if supervisor:
                support.reap(supervisor, wait=True)
            if event.stage in support.STAGES_OF_NAMESPACES:
                raise namespaces_failed(event.error, event.stage)
            raise OSError(event.error, f"{stage} failed for {argv[0]}: {os.strerror(event.error)}")
        pidfd = event.pidfd
        try:
            status = support.mirror(channel, pidfd, terminal=place.has_own_pids or os.getsid(0) == 0)
        finally:
            os.close(pidfd)
        # It may stay for what the program left running; then it is reaped by whoever gets it after us.
        support.reap(supervisor, wait=False)
    finally:
        os.close(channel)
    return os.waitstatus_to_exitcode(status)
