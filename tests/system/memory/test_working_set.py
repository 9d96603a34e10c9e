"""Pages that copies are seen to write to are copied when later ones start."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.snapshots import reseal
from tests.system.conftest import by_criu
from tests.system.mapped_programs import memory_of, take_mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.accounts import Account
    from tests.system.conftest import Mode
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MEGABYTES = 16
WRITER = f"""
import json, resource, sys, threading
from libcriu_py import checkpoint
size = {MEGABYTES} << 20
pattern = b"".join(number.to_bytes(8, "little") for number in range(1 << 17))
kept = pattern * 4
with checkpoint():
    data = bytearray(pattern * (size >> 20))
    if "with a thread" in sys.argv:
        threading.Thread(target=threading.Event().wait, daemon=True).start()
huge = next(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("AnonHugePages:"))
share = int(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for at in range(0, size * share // 100, 4096):
    data[at] ^= 255
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for at in range(0, size * share // 100, 4096):
    data[at] ^= 255
same = data == pattern * (size >> 20) and kept == pattern * 4
print(json.dumps({{"huge": huge, "faults": faults, "same": same}}), flush=True)
del data  # given back before the end, and seen to be written to all the same
sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
"""


def learn(snapshot: SelfDump, *runs: str) -> Any:
    """Have a snapshot learn from runs; returns what came of the command."""
    options = [word for run in runs for word in ("--learn-pages", run)]
    return snapshot.mode.run([snapshot.mode.account.python, "-m", "libcriu_py", "optimize", *options, snapshot.path])


def report(snapshot: SelfDump, *args: str, **env: str) -> dict[str, Any]:
    """Run a copy and give what it says of its faults and its memory."""
    done = snapshot.run(*args, env=env)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@by_criu
def test_learned_pages_are_there(mode: Mode, directory_of: Directories) -> None:
    """Copies take hardly a fault where the run to learn from wrote, and have the same memory."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER)
    pages = MEGABYTES << 8
    assert report(snapshot, "100")["faults"] > pages * 0.9
    done = learn(snapshot, "100")
    assert done.returncode == 0, done.stderr
    assert "working set: " in done.stdout
    said = report(snapshot, "100")
    assert said["faults"] < pages * 0.1
    assert said["same"]
    assert memory_of(snapshot)["working_set"]["ahead"] > (MEGABYTES << 20) * 0.9
    shown = mode.run([mode.account.python, "-m", "libcriu_py", "inspect", "--verify", snapshot.path])
    assert shown.returncode == 0, shown.stdout
    assert "copied when a copy starts" in shown.stdout
    assert sorted(os.listdir(snapshot.path.parent)) == ["program.py", snapshot.path.name]


@pytest.mark.parametrize("threads", [[], ["with a thread"]])
@by_criu
def test_huge_pages_for_one_thread(mode: Mode, directory_of: Directories, threads: list[str]) -> None:
    """Huge pages are used where the kernel has them, unless another thread could write meanwhile."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER, *threads)
    assert learn(snapshot, "100").returncode == 0
    said = report(snapshot, "100")
    assert said["same"]
    assert said["faults"] < (MEGABYTES << 8) * 0.1
    possible = "[never]" not in THP.read_text(encoding="ascii") and not threads
    assert (said["huge"] > (MEGABYTES << 10) * 0.6) == possible


@by_criu
def test_several_runs_and_learning_anew(mode: Mode, directory_of: Directories) -> None:
    """Only what all the runs write to is copied; what was learned before is forgotten."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER)
    assert learn(snapshot, "100").returncode == 0
    everything = memory_of(snapshot)["working_set"]["ahead"]
    assert learn(snapshot, "50", "100").returncode == 0
    half = memory_of(snapshot)["working_set"]["ahead"]
    assert (MEGABYTES << 20) * 0.4 < everything - half < (MEGABYTES << 20) * 0.6
    said = report(snapshot, "100")
    assert said["same"]
    assert (MEGABYTES << 8) * 0.4 < said["faults"] < (MEGABYTES << 8) * 0.6


@by_criu
def test_a_failed_run_changes_nothing(mode: Mode, directory_of: Directories) -> None:
    """A run that fails, and copied memory, are no way to learn; the snapshot is as it was."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER)
    before = (snapshot.path / "manifest.json").read_bytes()
    done = learn(snapshot, "100 3")
    assert done.returncode == 1
    assert "ended with status 3" in done.stderr
    assert (snapshot.path / "manifest.json").read_bytes() == before
    assert not (snapshot.path / "working-set").exists()
    assert sorted(os.listdir(snapshot.path.parent)) == ["program.py", snapshot.path.name]


@by_criu
def test_copied_memory_is_mapped_first(mode: Mode, directory_of: Directories) -> None:
    """A snapshot whose memory is copied is optimised, and then learns."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER, memory="copy")
    done = learn(snapshot, "100")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("memory mapped: ")
    assert report(snapshot, "100")["faults"] < (MEGABYTES << 8) * 0.1


@pytest.mark.parametrize("content", ["nothing", "anything", "everywhere"])
@by_criu
def test_a_wrong_file_does_no_harm(mode: Mode, directory_of: Directories, content: str) -> None:
    """Whatever ranges are in the file, no byte of the memory changes."""
    snapshot = take_mapped(mode, directory_of(mode.account), WRITER)
    assert learn(snapshot, "100").returncode == 0
    file = snapshot.path / "working-set"
    size = file.stat().st_size
    entry = (0).to_bytes(8, "little") + (0xFFFF_FFFF).to_bytes(4, "little") + (0).to_bytes(4, "little")
    wrong = {
        "nothing": bytes(size),
        "anything": random.Random(3).randbytes(size),
        "everywhere": entry * (size // 16),
    }
    file.chmod(0o600)
    file.write_bytes(wrong[content])
    reseal(snapshot.path)
    assert report(snapshot, "100")["same"]
