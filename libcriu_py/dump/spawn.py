"""Start a program where it may checkpoint itself, and relay its signals and status until it ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.dump.elsewhere import ELSEWHERE
from libcriu_py.errors import BinaryNotFound, CheckpointError, UnsupportedFeature
from libcriu_py.linux import sockets, supervision
from libcriu_py.settings import DEFAULT_ENGINE, variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.privilege.decision import Decision
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.privilege.namespaces import Place


def spawn_for_snapshot(argv: Sequence[str], *, env: Mapping[str, str], mode: Privilege | str | None = None) -> int:
    """
    Run a program where it may checkpoint itself, and wait for it.

    The native engine needs nothing, so the program runs right here. For criu it does so as root, or with a file-capable
    criu; otherwise in a user, pid and mount namespace, whose supervisor runs criu for it. Where the engine is "auto",
    the program is started there if the native engine has refused it here; but who names a mode means criu.

    Args:
        argv: The path of the program, and its arguments.
        env: Its environment, which has the engine.
        mode: Privilege mode; None picks the first that works.

    Returns:
        Its exit status, or minus the number of the signal that killed it.

    Raises:
        UnsupportedFeature: No privilege mode works here.
        CheckpointError: The supervisor was killed.
        OSError: The program could not be started.
    """
    from libcriu_py.privilege.mode import Privilege

    engine = variable("LIBCRIU_PY_ENGINE", env) or DEFAULT_ENGINE
    if engine == "auto" and Privilege.of(mode) is not Privilege.AUTO:
        env = {**env, "LIBCRIU_PY_ENGINE": "criu"}
    elif engine in {"auto", "native"}:
        status = _run_here(argv, env, engine)
        if status != ELSEWHERE:
            return status
    try:
        decision = _decide(mode)
    except (UnsupportedFeature, BinaryNotFound) as error:
        if engine == "criu" and os.uname().machine == "x86_64":
            message = f"{error}; a single process needs neither criu nor rights with --engine native"
            raise type(error)(message) from error
        raise
    return _run_for_criu(argv, env, decision)


def _decide(mode: Privilege | str | None) -> Decision:
    from libcriu_py.criu.find import find_criu
    from libcriu_py.linux.runtime_dir import sweep
    from libcriu_py.privilege.decision import decide

    sweep()
    return decide(mode, criu=find_criu())


def _run_here(argv: Sequence[str], env: Mapping[str, str], engine: str) -> int:
    """Run a program without namespaces, such that criu can dump it too where that may be."""
    from libcriu_py.privilege.mode import Privilege
    from libcriu_py.privilege.namespaces import HERE

    if engine == "auto":
        try:
            decision = _decide(None)
        except (UnsupportedFeature, BinaryNotFound):
            decision = None
        if decision is not None and decision.mode is not Privilege.ROOTLESS:
            return _run_for_criu(argv, env, decision)
    here = {name: value for name, value in env.items() if name != "LIBCRIU_PY_SERVICE"}
    return _run(argv, {**here, "LIBCRIU_PY_COMMAND": "here"}, HERE)


def _run_for_criu(argv: Sequence[str], env: Mapping[str, str], decision: Decision) -> int:
    """Run a program where criu may dump it."""
    from libcriu_py.linux.runtime_dir import dump_environment
    from libcriu_py.privilege.namespaces import avoid_low_pids, place_of_program
    from libcriu_py.snapshot import remains

    criu = decision.criu
    place = place_of_program(decision.mode)
    variables = {**env, "LIBCRIU_PY_MODE": decision.mode.value, "LIBCRIU_PY_CRIU": criu}
    for name in ("LIBCRIU_PY_SERVICE", "LIBCRIU_PY_MAKER"):
        variables.pop(name, None)
    service = None
    if place.has_own_pids:
        service = supervision.CriuService(sockets.random_name(), criu, dump_environment(criu))
        variables["LIBCRIU_PY_SERVICE"] = service.name
        variables["LIBCRIU_PY_MAKER"] = remains.maker()
    else:
        avoid_low_pids()
    return _run(argv, variables, place, service)


def _run(
    argv: Sequence[str], variables: Mapping[str, str], place: Place, service: supervision.CriuService | None = None
) -> int:
    """Run a program in its place, and return how it has ended."""
    sys.stdout.flush()
    channel = supervision.supervise(
        namespaces=place.namespaces,
        ambient=place.ambient,
        last_pid=place.last_pid,
        argv=[os.fsencode(item) for item in argv],
        env={os.fsencode(name): os.fsencode(value) for name, value in variables.items()},
        service=service,
    )
    try:
        event, supervisor = supervision.await_start(channel)
        if event.pidfd is None:
            if supervisor:
                supervision.reap(supervisor, wait=True)
            raise _not_started(event, argv[0])
        pidfd = event.pidfd
        try:
            status = supervision.mirror(channel, pidfd, terminal=place.has_own_pids or os.getsid(0) == 0)
        finally:
            os.close(pidfd)
        # The supervisor may stay for processes that the program left running; its next parent reaps it then.
        supervision.reap(supervisor, wait=False)
    except BrokenPipeError:
        message = "the supervisor of the program was killed, and the program with it; run the command again"
        raise CheckpointError(message) from None
    finally:
        os.close(channel)
    return os.waitstatus_to_exitcode(status)


def _not_started(event: supervision.Event, program: str) -> Exception:
    from libcriu_py.privilege.decision import namespaces_failed

    if event.stage in supervision.STAGES_OF_NAMESPACES:
        return namespaces_failed(event.error, event.stage)
    stage = supervision.STAGES.get(event.stage, "starting")
    return OSError(event.error, f"{stage} failed for {program}: {os.strerror(event.error)}")
