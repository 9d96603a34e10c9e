"""Native copies on another kernel, and in address spaces of another layout."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher
from tests.snapshots import reseal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.native.conftest import Run

THREADS = """
numbers, go = [], threading.Event()
def work(number):
    while not go.is_set():
        time.monotonic(); time.sleep(0.001)
    numbers.append(number)
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
"""
END = """
go.set()
[thread.join() for thread in threads]
before = time.time()
time.sleep(0.01)
print(sorted(numbers), 0.01 <= time.time() - before < 5)
"""


def take_to_another_kernel(snapshot: Path) -> None:
    """Change the build id of the vdso that a plan has."""
    plan = bytearray((snapshot / "plan").read_bytes())
    place = plan.index(b"GNU\0", plan.index(b"\x7fELF"))
    plan[place + 4] ^= 255
    (snapshot / "plan").write_bytes(plan)
    reseal(snapshot)


def test_another_vdso(dump: Run) -> None:
    """Threads that ask for the time go on to do so, by functions of the vdso that is there now."""
    outcome = dump(THREADS, END)
    expected = outcome.copy()
    take_to_another_kernel(outcome.snapshot)
    assert outcome.copy() == expected
    assert expected.startswith("[0, 1, 2, 3] True")


LAYOUTS = {
    "no chance": ["setarch", "-R"],
    "legacy": ["setarch", "-L"],
    "unlimited stack": ["bash", "-c", 'ulimit -s unlimited; exec "$@"', "bash"],
    "small stack": ["bash", "-c", 'ulimit -s 100; exec "$@"', "bash"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_layout(layout: str, dump: Run) -> None:
    """Whatever is where the launcher is, the copy's memory is where it was."""
    outcome = dump(THREADS, END)
    argv = [*LAYOUTS[layout], str(launcher.find()), "--no-fallback", str(outcome.snapshot)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[0, 1, 2, 3] True")
