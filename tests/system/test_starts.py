"""
What the first copies of a snapshot write to is fetched ahead in later ones, and the programs cannot tell.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.accounts import obstruct
from tests.system.mapped_programs import memory_of, take_mapped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.system.accounts import Account
    from tests.system.conftest import Mode
    from tests.system.selfdump import SelfDump

    Directories = Callable[[Account], Path]

MEGABYTES = 8
PAGES = MEGABYTES << 8
WRITER = f"""
import json, os, resource, sys, time
from libcriu_py import after_restore, checkpoint
threads = []
after_restore(lambda: threads.append(len(os.listdir("/proc/self/task"))))
with checkpoint(exit="fast"):  # the interpreter's teardown would write to all of its objects
    data = bytearray(range(256)) * ({MEGABYTES} << 12)
    once = bytearray(1 << 20)
share, *learned = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for at in range(0, len(data) * int(share) // 100, 4096):
    data[at] ^= 255
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for at in range(0, len(data) * int(share) // 100, 4096):
    data[at] ^= 255
same = data == bytearray(range(256)) * ({MEGABYTES} << 12)
threads.append(len(os.listdir("/proc/self/task")))

def size(name):
    try:
        return os.stat(name).st_size
    except FileNotFoundError:
        return -1

def sizes():
    return list(map(size, learned))

# Until the launcher has kept what it has seen of this run; where nobody can say in which file that is, until it has
# looked for the last time, LAST_LOOK (csrc/learning.c) after the start.
if learned == ["unknown"]:
    time.sleep(0.3)
    learned = []
first = sizes()
deadline = time.monotonic() + 30
while learned and sizes() == first and time.monotonic() < deadline:
    time.sleep(0.005)
print(json.dumps({{"faults": faults, "same": same, "threads": threads}}), flush=True)
"""


class Learning:
    """
    A snapshot whose copies are run to learn from, and then others.
    """

    def __init__(self, snapshot: SelfDump) -> None:
        """
        Find out where is kept what is learned.

        Args:
            snapshot: The snapshot.
        """
        self.snapshot = snapshot
        status = (snapshot.path / "manifest.json").stat()
        name = f"start-{status.st_dev:x}-{status.st_ino:x}-{status.st_mtime_ns:x}"
        self.known = Path(f"/dev/shm/libcriu_py-{snapshot.mode.account.uid}") / name
        self.runs = self.known.with_name(f"{name}.runs")

    def learn(self, *shares: int, **env: str) -> None:
        """
        Run copies that write to a share of their memory, in percent.
        """
        for share in shares:
            said = self.report(str(share), str(self.runs), str(self.known), **env)
            assert said["same"]

    def report(self, *args: str, **env: str) -> dict[str, Any]:
        """
        Run a copy and give what it says.
        """
        done = self.snapshot.run(*args, env={"LIBCRIU_PY_LEARN": "1", **env})
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@pytest.fixture
def learning(mode: Mode, directory_of: Directories) -> Learning:
    """
    Give a snapshot in each mode.
    """
    return Learning(take_mapped(mode, directory_of(mode.account), WRITER))


@pytest.fixture
def one(own_account: Account, mode_named: Callable[[str], Mode], directory_of: Directories) -> Learning:
    """
    Give a snapshot in one mode.
    """
    return Learning(take_mapped(mode_named("root"), directory_of(own_account), WRITER))


def test_learned_by_three_runs(learning: Learning) -> None:
    """
    The fourth copy takes hardly a fault where the first three wrote, has the same memory, and one thread.
    """
    before = sorted(os.listdir(learning.snapshot.path))
    learning.learn(100, 100, 100)
    assert learning.known.exists()
    assert not learning.runs.exists()
    said = learning.report("100")
    assert said["faults"] < PAGES * 0.1
    assert said["same"]
    assert said["threads"] == [1, 1]  # in a hook, and in the program
    assert learning.report("100", LIBCRIU_PY_LEARN="0")["faults"] > PAGES * 0.9
    assert sorted(os.listdir(learning.snapshot.path)) == before


def test_learned_by_the_launcher_in_python(one: Learning) -> None:
    """
    It learns and uses the same.
    """
    one.learn(100, 100, 100, LIBCRIU_PY_LAUNCHER="python")
    assert one.report("100", LIBCRIU_PY_LAUNCHER="python")["faults"] < PAGES * 0.1
    inspect = [one.snapshot.mode.account.python, "-m", "libcriu_py", "inspect", one.snapshot.path]
    shown = one.snapshot.mode.run(inspect, env={"LIBCRIU_PY_LEARN": "1"})
    assert "fetched ahead, which its first runs have written to" in shown.stdout


@pytest.mark.parametrize(("shares", "share"), [((1, 100, 100), 1.0), ((50, 100, 1), 0.5), ((100, 1, 1), 0.0)])
def test_what_two_of_three_runs_write_to_counts(one: Learning, shares: Sequence[int], share: float) -> None:
    """
    One run that does less, or more, than the others decides nothing.
    """
    one.learn(*shares)
    faults = one.report("100")["faults"]
    assert PAGES * (1 - share - 0.1) < faults < PAGES * (1 - share + 0.1)


def test_what_is_kept_may_be_anything(one: Learning) -> None:
    """
    A file of something else than pages does no harm, nor do addresses at which there is nothing.
    """
    one.known.write_bytes(b"\xff" * 1000 + bytes(4096) + (1 << 46).to_bytes(8, "little") * 300)
    said = one.report("100")
    assert said["same"]
    one.known.unlink()
    one.runs.write_bytes(b"\xff" * 1001)
    one.learn(100, 100, 100)
    assert one.report("100")["same"]


def test_nothing_to_learn(one: Learning) -> None:
    """
    Where a snapshot says itself what is to be copied ahead, or nobody wants it, nothing is learned.
    """
    one.report("100", LIBCRIU_PY_LEARN="")
    assert not one.runs.exists()
    account = one.snapshot.mode.account
    done = one.snapshot.mode.run(
        [account.python, "-m", "libcriu_py", "optimize", "--learn-pages", "100", one.snapshot.path]
    )
    assert done.returncode == 0, done.stderr
    assert memory_of(one.snapshot)["working_set"] is not None
    again = Learning(one.snapshot)
    again.report("100")
    assert not again.runs.exists()


def test_learned_when_a_snapshot_is_made(learning: Learning) -> None:
    """
    What is put into a snapshot holds from its first copy on, wherever that is.
    """
    snapshot = learning.snapshot
    python = snapshot.mode.account.python
    place = snapshot.path.parent / "elsewhere"
    place.mkdir()
    snapshot.mode.account.give(place)
    obstruct(snapshot.mode.account, place)
    # Isolated from the working directory, as the installed command is.
    optimize = [python, "-I", "-m", "libcriu_py", "optimize", "--learn-start", "100 unknown", snapshot.path]
    done = snapshot.mode.run(optimize, cwd=place)
    assert done.returncode == 0, done.stderr
    assert "which copies will fetch ahead" in done.stdout
    said = learning.report("100", LIBCRIU_PY_LEARN="")
    assert said["same"]
    assert said["threads"] == [1, 1]
    assert said["faults"] < PAGES * 0.1
    assert learning.report("100", LIBCRIU_PY_LEARN="0")["faults"] > PAGES * 0.9
    assert not Learning(snapshot).runs.exists()
    shown = snapshot.mode.run([python, "-m", "libcriu_py", "inspect", "--verify", snapshot.path])
    assert shown.returncode == 0, shown.stdout


def test_a_run_that_fails_changes_nothing(one: Learning) -> None:
    """
    A run that fails leaves a snapshot as it was.
    """
    snapshot = one.snapshot
    before = (snapshot.path / "manifest.json").read_bytes()
    optimize = [snapshot.mode.account.python, "-m", "libcriu_py", "optimize", "--learn-start"]
    failed = snapshot.mode.run([*optimize, "no number", snapshot.path])
    assert failed.returncode == 1
    assert "ended with status 1; nothing was changed" in failed.stderr
    assert (snapshot.path / "manifest.json").read_bytes() == before
    assert sorted(os.listdir(snapshot.path.parent)) == ["program.py", snapshot.path.name]


def test_the_functions_of_python_use_it(one: Learning) -> None:
    """
    What the launcher has learned holds for `restore` too.
    """
    one.learn(100, 100, 100)
    code = """
        import json, sys
        from libcriu_py import restore
        with restore(sys.argv[1], ["100"], stdout=-1) as process:
            print(json.load(process.stdout)["faults"])
    """
    assert int(one.snapshot.call(code, env={"LIBCRIU_PY_LEARN": "1"}).stdout) < PAGES * 0.1
