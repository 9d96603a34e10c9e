"""Commands where something cannot be written: the new snapshot, or what criu needs on /dev/shm."""

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


FULL = """
mount -t tmpfs -o mode=1777,size=64k,nr_inodes=$1 shm /dev/shm && shift || exit 99
head -c 128K /dev/zero >/dev/shm/others 2>/dev/null
exec "$@"
"""
"""Has a /dev/shm of its own that is full: of data where the number is high, else of files."""


def in_full_shm(command: Command, files: int, *words: object) -> str:
    """Run a command where /dev/shm is full, and return what it has said."""
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = command.mode.run([*namespace, "sh", "-c", FULL, "sh", files, *command.mode.command, *words])
    return str(done.stdout + done.stderr)


def test_full_shm_is_named(one: Command) -> None:
    """Where there is no more room for files, and where there is none for what is in them."""
    script = write(one.place / "main.py", "print('ran')\n")
    snapshot = one.place / "snap"
    for files in (2, 50):
        said = in_full_shm(one, files, "snapshot", "-o", snapshot, script)
        assert "No space left on device" in said
        assert "/dev/shm/libcriu_py-" in said
        assert not snapshot.exists()
    assert one("snapshot", "-o", snapshot, script).returncode == 0
    said = in_full_shm(one, 2, "run", snapshot)
    assert "starting conventionally: /dev/shm/libcriu_py-" in said
    assert "No space left on device" in said
    assert "ran\n" in in_full_shm(one, 50, "run", "--no-fallback", snapshot)
