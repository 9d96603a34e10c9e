"""Commands whose program was killed in a pid namespace: the next one knows what they have left."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode


def supervisor_of(command: subprocess.Popen[str]) -> int:
    """Return the pid of a command's supervisor."""
    children = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text(encoding="ascii").split()
    (pid,) = [int(child) for child in children if "supervisor" in Path(f"/proc/{child}/comm").read_text("ascii")]
    return pid


def await_file(path: Path) -> None:
    """Wait until there is a file."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_half_a_snapshot_of_a_namespace_is_made_anew(
    mode_named: Callable[[str], Mode], own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """Its maker cannot be seen any more, but the command that had put it there can."""
    command = Command(mode_named("rootless-as-root"), directory_of(own_account))
    snapshot, criu = command.place / "snap", command.place / "criu"
    script = write(command.place / "main.py", "print('ran')\n")
    write(criu, "#!/bin/bash\nsleep 1000; sleep 1000\n").chmod(0o755)
    argv = [*map(str, [*command.mode.command, "snapshot", "-o", snapshot, script])]
    env = {**os.environ, **command.mode.env, "LIBCRIU_PY_CRIU": str(criu)}
    with subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True) as killed:
        await_file(snapshot / "slots" / "stderr")
        os.kill(supervisor_of(killed), signal.SIGKILL)
        _, said = killed.communicate(timeout=30)
    assert killed.returncode == 1
    assert "the supervisor of the program was killed" in said
    assert (snapshot / "images").exists()
    done = command("snapshot", "-o", snapshot, script)
    assert done.returncode == 0, done.stderr
    assert command.restored(snapshot) == "ran\n"


def test_supervisor_that_is_stopped_is_continued(
    mode_named: Callable[[str], Mode], own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """Whenever that is: the command waits for what it tells."""
    command = Command(mode_named("rootless-as-root"), directory_of(own_account))
    snapshot = command.place / "snap"
    script = write(command.place / "main.py", "import decimal, json, logging\n")
    argv = [*map(str, [*command.mode.command, "snapshot", "-o", snapshot, script])]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as stopped:
        await_file(snapshot)
        os.kill(supervisor_of(stopped), signal.SIGSTOP)
        _, said = stopped.communicate(timeout=30)
    assert stopped.returncode == 0, said
