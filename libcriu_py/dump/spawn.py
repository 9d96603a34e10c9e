"""Start a program where it may checkpoint itself, and relay its signals and status until it ends."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from libcriu_py.linux import sockets, supervision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from libcriu_py.privilege.mode import Privilege


def spawn_for_snapshot(argv: Sequence[str], *, env: Mapping[str, str], mode: Privilege | str | None = None) -> int:
    """
    Run a program where it may checkpoint itself, and wait for it.

    As root, or with a file-capable criu, the program runs right here; otherwise in a user, pid and mount namespace,
    whose supervisor runs criu for it.

    Args:
        argv: The path of the program, and its arguments.
        env: Its environment.
        mode: Privilege mode; None picks the first that works.

    Returns:
        Its exit status, or minus the number of the signal that killed it.

    Raises:
        UnsupportedFeature: No privilege mode works here.
        OSError: The program could not be started.
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
        service = supervision.CriuService(sockets.random_name(), criu, dump_environment(criu))
        variables["LIBCRIU_PY_SERVICE"] = service.name
    else:
        avoid_low_pids()
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
            stage = supervision.STAGES.get(event.stage, "starting")
            if supervisor:
                supervision.reap(supervisor, wait=True)
            if event.stage in supervision.STAGES_OF_NAMESPACES:
                raise namespaces_failed(event.error, event.stage)
            raise OSError(event.error, f"{stage} failed for {argv[0]}: {os.strerror(event.error)}")
        pidfd = event.pidfd
        try:
            status = supervision.mirror(channel, pidfd, terminal=place.has_own_pids or os.getsid(0) == 0)
        finally:
            os.close(pidfd)
        # The supervisor may stay for processes that the program left running; its next parent reaps it then.
        supervision.reap(supervisor, wait=False)
    finally:
        os.close(channel)
    return os.waitstatus_to_exitcode(status)
