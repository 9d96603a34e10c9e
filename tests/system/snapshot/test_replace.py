"""Snapshots that are replaced while copies are being restored from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from typing import TYPE_CHECKING

from libcriu_py import Snapshot
from libcriu_py.linux.runtime_dir import private_directory
from libcriu_py.snapshot import launcher
from libcriu_py.snapshot.staging import replacing
from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

RUNS = 30
LAUNCHERS = 3


def test_no_run_in_flight_falls_back(
    mode_named: Callable[[str], Mode], own_account: Account, directory_of: Callable[[Account], Path]
) -> None:
    """A run reads the snapshot that it has found, to its end, however often that is replaced meanwhile."""
    command = Command(mode_named("root" if os.geteuid() == 0 else "rootless"), directory_of(own_account))
    snapshot = command.place / "snap"
    done = command("snapshot", "-o", snapshot, "--memory", "map", write(command.place / "main.py", "print('ran')\n"))
    assert done.returncode == 0, done.stderr
    ended, failed = threading.Event(), []

    def replace() -> None:
        while not ended.is_set():
            with replacing(Snapshot.open(snapshot)) as directory:
                for name in ("launch", "manifest.json"):
                    shutil.copy2(snapshot / name, directory)

    def start() -> None:
        for _ in range(RUNS):
            run = subprocess.run(
                [launcher.path(), "--no-fallback", snapshot], check=False, capture_output=True, text=True, timeout=60
            )
            if (run.returncode, run.stdout) != (0, "ran\n"):
                failed.append(run.stderr)

    replacer = threading.Thread(target=replace)
    starting = [threading.Thread(target=start) for _ in range(LAUNCHERS)]
    for thread in (replacer, *starting):
        thread.start()
    for thread in starting:
        thread.join()
    ended.set()
    replacer.join()
    assert failed == []
    assert sorted(os.listdir(command.place)) == ["main.py", "snap"]


def test_note_of_a_replaced_snapshot_goes_with_it(one: Command) -> None:
    """Or /dev/shm would have one more file for each that was ever made."""
    snapshot, script = one.place / "snap", write(one.place / "main.py", "print('ran')\n")
    notes: set[str] = set()
    for _ in range(3):
        done = one("snapshot", "-o", snapshot, "--replace", "--memory", "map", script)
        assert done.returncode == 0, done.stderr
        status, there = snapshot.stat(), os.listdir(private_directory())
        notes.add(note := f"sound-{status.st_dev:x}-{status.st_ino:x}")
        assert notes.intersection(there) == {note}
