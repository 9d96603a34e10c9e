"""Starting a program where it may checkpoint itself, and being it until it ends."""

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
        # It may stay for what the program left running; then it is reaped by whoever gets it after us.
        supervision.reap(supervisor, wait=False)
    finally:
        os.close(channel)
    return os.waitstatus_to_exitcode(status)
