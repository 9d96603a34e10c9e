"""Many copies of one snapshot, by an account without rights."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.accounts import popen_as, run_as
from tests.system.privileges import write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

COPIES = 100

MANY = """\
import json, os, sys
from libcriu_py import PIPE, restore_many
processes = restore_many(sys.argv[1], [["copy", str(n)] for n in range(int(sys.argv[2]))], stdin=PIPE, stdout=PIPE)
alive = sum(process.poll() is None for process in processes)
answers = [json.loads(process.communicate(b"")[0]) for process in processes]
print(json.dumps({"alive": alive, "answers": answers, "codes": [process.returncode for process in processes]}))
"""

POOL = """\
import asyncio, json, sys
from libcriu_py import RestorePool

async def main():
    answers = []
    async with RestorePool(sys.argv[1], ["ready"], size=3) as pool:
        for _ in range(9):
            process = await pool.take()
            output, _ = await process.communicate(b"")
            answers.append(json.loads(output)["argv"])
        victim = await pool.take()
        victim.kill()
        await victim.wait()
        left = await asyncio.gather(*(pool.take() for _ in range(4)))
        for process in left:
            async with process:
                pass
    try:
        await pool.take()
    except RuntimeError as error:
        answers.append(str(error))
    print(json.dumps(answers))

asyncio.run(main())
"""


POOL_TROUBLE = """\
import asyncio, json, os, signal, sys
from pathlib import Path
from libcriu_py import CriuError, RestorePool
from libcriu_py.linux.processes import processes

async def ready(pool):
    while "1 of 1 ready" not in repr(pool):
        await asyncio.sleep(0.01)

async def answer(pool):
    process = await pool.take()
    return json.loads((await process.communicate(b""))[0])["argv"]

async def main():
    told = {}
    async with RestorePool(sys.argv[1], ["ready"], size=1) as pool:
        await ready(pool)
        others = {"lcp-supervisor\\n", "libcriu-py-run\\n"}
        waiting = [pid for pid in processes()[1:] if Path(f"/proc/{pid}/comm").read_text() not in others]
        for pid in waiting:
            os.kill(pid, signal.SIGKILL)
        while set(waiting) & set(processes()):
            await asyncio.sleep(0.01)
        told["after a death"] = await answer(pool)

        taker = asyncio.create_task(pool.take())
        await asyncio.sleep(0)
        taker.cancel()
        told["cancelled"] = isinstance((await asyncio.gather(taker, return_exceptions=True))[0], asyncio.CancelledError)
        turns, asked = 0, asyncio.create_task(answer(pool))
        while not asked.done():
            turns += 1
            await asyncio.sleep(0)
        told["after a cancellation"], told["the loop went on"] = asked.result(), turns > 100
    try:
        async with RestorePool(sys.argv[1], ["ready"], size=1, cwd="/nonexistent") as pool:
            await pool.take()
    except (CriuError, OSError) as error:
        told["failed"] = "/nonexistent" in str(error)
    print(json.dumps(told))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def read_only_snapshot(account: Account) -> Iterator[Path]:
    """Yield a snapshot that nobody can write, made without rights."""
    directory = account.directory()
    program = write_program(account, directory)
    snapshot = directory / "snapshot"
    made = run_as(
        account, [account.python, "-m", "libcriu_py", "snapshot", "--engine", "criu", "-o", snapshot, program, snapshot]
    )
    assert made.returncode == 0, made.stderr
    for path in [*snapshot.rglob("*"), snapshot]:
        path.chmod(path.stat().st_mode & ~0o222)
    yield snapshot
    for path in [snapshot, *snapshot.rglob("*")]:
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(directory)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_copies_live_at_once_and_answer_each_for_itself(account: Account, read_only_snapshot: Path) -> None:
    """All of them run at the same time under the same pid, with arguments and pipes of their own."""
    argv = [account.python, "-c", MANY, read_only_snapshot, COPIES]
    done = run_as(account, list(map(str, argv)), timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["alive"] == COPIES
    assert told["codes"] == [0] * COPIES
    assert [answer["argv"] for answer in told["answers"]] == [["copy", str(number)] for number in range(COPIES)]
    assert len({answer["pid"] for answer in told["answers"]}) == 1
    assert {answer["effective"] for answer in told["answers"]} == {"0" * 16}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_hundred_commands_at_once_answer_each_for_itself(account: Account, read_only_snapshot: Path) -> None:
    """The command run is used a hundred times in parallel, as a shell would."""
    run = [account.python, "-m", "libcriu_py", "run", "--no-fallback", read_only_snapshot, "--"]
    processes = [
        popen_as(account, [*run, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for n in range(COPIES)
    ]
    lines = [process.stdout.readline() for process in processes if process.stdout]
    for process in processes:
        process.communicate("", timeout=300)
    assert [json.loads(line)["argv"] for line in lines] == [[str(number)] for number in range(COPIES)]
    assert [process.returncode for process in processes] == [0] * COPIES


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_copies_one_after_the_other_answer(account: Account, read_only_snapshot: Path) -> None:
    """Nothing adds up: neither descriptors here nor anything outside."""
    script = (
        "import os, sys\nfrom libcriu_py import PIPE, restore\n"
        "def once(n):\n"
        "    with restore(sys.argv[1], [str(n)], stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:\n"
        "        output, errors = process.communicate(b'')\n"
        "    assert f'[\"{n}\"]' in output.decode() and process.returncode == 0, (output, errors)\n"
        "once(0)\nbefore = os.listdir('/proc/self/fd')\n"
        "for n in range(1, 1001):\n    once(n)\n"
        "assert len(os.listdir('/proc/self/fd')) == len(before)\nprint('fine')\n"
    )
    done = run_as(account, [account.python, "-c", script, read_only_snapshot], timeout=580)
    assert done.stdout == "fine\n", done.stderr


def test_nothing_is_written_into_the_snapshot(account: Account, read_only_snapshot: Path) -> None:
    """Neither names nor times of its files change by a restore."""
    before = {path: path.stat().st_mtime_ns for path in read_only_snapshot.rglob("*")}
    done = run_as(account, [account.python, "-m", "libcriu_py", "run", "--no-fallback", read_only_snapshot])
    after = {path: path.stat().st_mtime_ns for path in read_only_snapshot.rglob("*")}
    assert done.returncode == 0, done.stderr
    assert after == before


def test_a_pool_hands_out_ready_children_and_replaces_them(account: Account, read_only_snapshot: Path) -> None:
    """More children than its size are taken, one after the other and several at once; the rest ends with the pool."""
    done = run_as(account, [account.python, "-c", POOL, read_only_snapshot])
    assert done.returncode == 0, done.stderr
    *answers, refusal = json.loads(done.stdout)
    assert answers == [["ready"]] * 9
    assert "closed" in refusal


def test_a_pool_gets_over_deaths_and_cancellations(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """A child that dies while it waits is replaced, a taker that gives up costs none, and a failed restore is told."""
    directory = directory_of(mode.account)
    program, snapshot = write_program(mode.account, directory), directory / "snapshot"
    made = mode.run([mode.account.python, "-m", "libcriu_py", "snapshot", "-o", snapshot, program, snapshot])
    assert made.returncode == 0, made.stderr
    done = mode.run([mode.account.python, "-c", POOL_TROUBLE, snapshot])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "after a death": ["ready"],
        "cancelled": True,
        "after a cancellation": ["ready"],
        "the loop went on": True,
        "failed": True,
    }


def test_a_pool_needs_a_size() -> None:
    """Without a child there is nothing to hand out."""
    from libcriu_py import RestorePool

    with pytest.raises(ValueError, match="at least 1"):
        RestorePool("snapshot", size=0)


SAME = """\
import asyncio, json, sys
from libcriu_py import PIPE, restore, restore_async

async def twins():
    processes = await restore_async(sys.argv[1], ["async"], n=2, stdin=PIPE, stdout=PIPE)
    return [json.loads((await process.communicate(b""))[0]) for process in processes]

processes = restore(sys.argv[1], ["same"], n=5, stdin=PIPE, stdout=PIPE, wait_ready=True)
alive = [process.poll() for process in processes]
answers = [json.loads(process.communicate(b"")[0]) for process in processes]
try:
    restore(sys.argv[1], n=0)
except ValueError as error:
    refused = str(error)
print(json.dumps([alive, answers, asyncio.run(twins()), refused]))
"""


def test_some_copies_with_the_same_arguments(account: Account, read_only_snapshot: Path) -> None:
    """A number gives a list of as many processes, which live at the same time and have pipes of their own."""
    done = run_as(account, [account.python, "-c", SAME, read_only_snapshot])
    assert done.returncode == 0, done.stderr
    alive, answers, twins, refused = json.loads(done.stdout)
    assert alive == [None] * 5
    assert [answer["argv"] for answer in answers] == [["same"]] * 5
    assert [answer["argv"] for answer in twins] == [["async"]] * 2
    assert "at least one copy" in refused


def test_a_failed_copy_ends_the_others(account: Account, read_only_snapshot: Path) -> None:
    """restore_many gives back all copies or none."""
    script = (
        "import sys\nfrom libcriu_py import CriuError, PIPE, restore_many\n"
        "try:\n    restore_many(sys.argv[1], [['a'], ['b']], mode='capability', stdin=PIPE, stdout=PIPE)\n"
        "except CriuError as error:\n    print(error)\n"
    )
    done = run_as(account, [account.python, "-c", script, read_only_snapshot])
    assert "carries no file capability" in done.stdout, done.stderr
