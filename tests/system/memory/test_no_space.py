"""``libcriu-py optimize`` where the new snapshot cannot be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode


def test_no_space_is_a_failure(
    mode_named: Callable[[str], Mode], own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """It is told with what there is too little of; the snapshot is as it was, and nothing is beside it."""
    command = Command(mode_named("root" if os.geteuid() == 0 else "rootless"), directory_of(own_account))
    snapshot = command.place / "snap"
    done = command("snapshot", "-o", snapshot, "--memory", "copy", write(command.place / "main.py", "print('ran')\n"))
    assert done.returncode == 0, done.stderr
    limited = ["sh", "-c", 'ulimit -f 64; exec "$@"', "sh", *command.mode.command, "optimize", snapshot]
    done = command.mode.run(limited)
    assert (done.returncode, done.stdout) == (1, "")
    assert "File too large (the limit is " in done.stderr
    assert sorted(os.listdir(command.place)) == ["main.py", "snap"]
    done = command("optimize", snapshot)
    assert "memory mapped" in done.stdout
    assert command("run", "--no-fallback", snapshot).stdout == "ran\n"
