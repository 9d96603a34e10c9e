"""Native copies on another kernel, and in address spaces of another layout."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.snapshots import reseal

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    done = outcome.start(prefix=LAYOUTS[layout])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("[0, 1, 2, 3] True")


MEMORY = 64 << 20
"""Bytes of a program in a control group that allows less."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_dump_in_another_layout(layout: str, dump: Run) -> None:
    """A process that has another layout than usual dumps itself, and its copy is anywhere."""
    assert dump(THREADS, END, prefix=LAYOUTS[layout]).copy().startswith("[0, 1, 2, 3] True")


WAITS = """
import asyncio
held, ended = threading.Lock(), []
held.acquire()
def long(): ended.append(("long", held.acquire(timeout=300)))
def short(): ended.append(("short", threading.Event().wait(1)))
threads = [threading.Thread(target=work) for work in (long, short)]
[thread.start() for thread in threads]
loop = asyncio.new_event_loop()
far, near = loop.create_future(), loop.create_future()
loop.call_later(300, far.set_result, None)
loop.call_later(0.1, near.set_result, None)
then = time.monotonic()
"""
WAITED = """
loop.run_until_complete(near)
threads[1].join()
held.release()
threads[0].join()
print(ended, far.done(), 0 < time.monotonic() - then < 200)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a time namespace takes root")
@pytest.mark.parametrize("seconds", [10**7, None], ids=["forward", "back"])
def test_clocks_of_another_machine(seconds: int | None, dump: Run) -> None:
    """What waits has as long to go whether the machine's clocks are far ahead, or have only just begun."""
    outcome = dump(WAITS, WAITED)
    offset = str(5 - int(time.clock_gettime(time.CLOCK_BOOTTIME)) if seconds is None else seconds)
    argv = ["unshare", "--time", "--monotonic", offset, "--boottime", offset, "--"]
    done = outcome.start(prefix=argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "[('short', False), ('long', True)] False True\n"


@pytest.fixture
def group() -> Iterator[Path]:
    """Yield a control group with less memory than a copy has."""
    name = f"lcp-{secrets.token_hex(4)}"
    for parent, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        path = Path(parent, name)
        with contextlib.suppress(OSError):
            path.mkdir()
            try:
                (path / limit).write_text(str(MEMORY // 2), encoding="ascii")
            except OSError:
                path.rmdir()
                raise
            yield path
            path.rmdir()
            return
    pytest.skip("no control group with a limit of memory can be made here")


def test_less_memory_than_a_copy_has(group: Path, dump: Run) -> None:
    """What a copy only reads is the snapshot's file, whose pages the kernel takes away and gets back."""
    outcome = dump(f"held = bytearray(b'x') * {MEMORY}", "print(held.count(b'x'), held.count(b'x'))")
    with (outcome.snapshot / "memory.img").open("rb") as file:  # its pages are not the group's yet, but this one's
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    done = outcome.start(prefix=["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{MEMORY} {MEMORY}\n"
    (failures,) = (path for name in ("memory.failcnt", "memory.events") if (path := group / name).exists())
    told = failures.read_text(encoding="ascii")
    assert told != "0\n"
    assert "\nmax 0\n" not in told
