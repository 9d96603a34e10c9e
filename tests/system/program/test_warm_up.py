"""``libcriu-py snapshot --warm-up``: programs that are run in the process that is saved."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.system.cli_command import Command, write

if TYPE_CHECKING:
    from pathlib import Path

# What a run changes of its surroundings, after it has printed what it found.
RUN = """\
import atexit, logging, os, random, signal, sys
import state
state.runs += 1

@atexit.register
def last():
    print("last", sys.argv[1:])

def main():
    old = os.umask(0o027)
    found = [signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, len(sys.path), os.environ.get("SET"), oct(old)]
    found += [len(logging.root.handlers), os.path.basename(os.getcwd()), len(globals().get("left", ""))]
    print("runs", state.runs, found, flush=True)
    logging.basicConfig(level=sys.argv[1].upper(), stream=sys.stdout, format="%(message)s")
    logging.info("told")
    signal.signal(signal.SIGTERM, lambda *_: None)
    sys.path.insert(0, "/nowhere")
    os.environ["SET"] = "1"
    os.chdir("/")
    if sys.argv[1] == "info":
        random.seed(1)
    print("drawn", random.random())
    sys.stdout = sys.stderr

main()
left = "over"
"""


def test_copies_are_warm_and_begin_anew(command: Command) -> None:
    """What runs leave in modules is there; all that belongs to a run is as a conventional start finds it."""
    write(command.place / "state.py", "runs = 0\n")
    script = write(command.place / "app.py", RUN)
    done = command(
        "snapshot", "-o", command.place / "snap", "--warm-up", "info", "--warm-up", "error", script, cwd=command.place
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "warm-up" in line] == [
        "libcriu-py: warm-up with info",
        "libcriu-py: warm-up with error",
    ]
    assert done.stderr.count("last ['info']") == done.stderr.count("last ['error']") == 2
    plain = command.mode.run([command.mode.account.python, script, "warning"], cwd=command.place)
    copies = [command("run", "--no-fallback", command.place / "snap", "warning", cwd=command.place) for _ in range(2)]
    for copy in copies:
        assert (copy.returncode, copy.stderr) == (0, plain.stderr)
        kept = [line.replace("runs 5", "runs 1") for line in copy.stdout.splitlines()]
        assert kept[0] == plain.stdout.splitlines()[0]
        assert len(kept) == len(plain.stdout.splitlines()) == 2
    drawn = {copy.stdout.splitlines()[1] for copy in copies}
    assert len(drawn) == 2, "a seed of the warm-up was taken for one of the program"
    assert command.inspect(command.place / "snap")["warm_up"] == [["info"], ["error"]]


KEPT = """\
import sys

def main(args=sys.argv, orig_args=sys.orig_argv):
    print(args[1:], orig_args[-1], args is sys.argv, orig_args is sys.orig_argv, flush=True)
    sys.argv = ["replaced", "by the program"]
    sys.orig_argv = []
"""

IMPORTS = {
    "at its start": "import kept\nkept.main()\n",
    "in a function": "def run():\n    import kept\n    kept.main()\nrun()\n",
}


@pytest.mark.parametrize("place", IMPORTS)
@pytest.mark.parametrize("options", [(), ("--warm-up", "w1 w2")])
def test_a_list_of_arguments_that_a_module_keeps_is_the_one(
    command: Command, options: tuple[str, ...], place: str
) -> None:
    """`def main(args=sys.argv)` in a module sees each run's arguments, also where an earlier one replaced sys.argv."""
    write(command.place / "kept.py", KEPT)
    script = write(command.place / "app.py", IMPORTS[place])
    done = command("snapshot", "-o", command.place / "snap", *options, script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("['w1', 'w2'] w2 True True\n") == len(options)
    for args in (["a", "b"], ["c"]):
        assert command.restored(command.place / "snap", *args) == f"{args} {args[-1]} True True\n"


def test_a_pool_of_threads_is_there_and_works(one: Command) -> None:
    """What the first run makes of it is used by the copies."""
    write(
        one.place / "pool.py",
        "from concurrent.futures import ThreadPoolExecutor\nimport threading\nexecutor = ThreadPoolExecutor(1)\n"
        "def work():\n    print('worked', *(t.name for t in threading.enumerate()), flush=True)\n",
    )
    source = "import pool\nprint(len(pool.threading.enumerate()))\npool.executor.submit(pool.work).result()\n"
    script = write(one.place / "app.py", source)
    done = one("snapshot", "-o", one.place / "snap", "--warm-up", "", script)
    assert done.returncode == 0, done.stderr
    worked = "worked MainThread ThreadPoolExecutor-0_0\n"
    assert done.stdout.startswith(f"1\n{worked}2\n{worked}snapshot: ")
    assert one.restored(one.place / "snap") == f"2\n{worked}"


def test_a_thread_that_goes_on_is_refused(one: Command) -> None:
    """It would be in every copy; one that ends soon is waited for."""
    fifo = one.place / "fifo"
    os.mkfifo(fifo)
    source = f"import threading\nthreading.Thread(target=lambda: open({str(fifo)!r}).read(), name='reader').start()\n"
    script = write(one.place / "app.py", source)
    done = one("snapshot", "-o", one.place / "snap", "--warm-up", "", script, start_new_session=True)
    assert "10 seconds after its end these threads were still running: reader; leave out --warm-up" in done.stderr


ENDS: dict[str, tuple[str, str]] = {
    "raises": (
        "1 / 0",
        "division by zero\nlibcriu-py: no snapshot was made: the warm-up ended with ZeroDivisionError",
    ),
    "raises the second time": (
        "import state\nstate.once()",
        "only\nlibcriu-py: no snapshot was made: the program cannot be run again in the same process: RuntimeError",
    ),
    "other status": (
        "import state\nstate.runs += 1\nraise SystemExit(state.runs)",
        "with no arguments it ended with status 1 at first and with 2 the second time; leave out --warm-up",
    ),
    "ends the process": ("import os\nos._exit(0)", "ended the process with status 0 during the warm-up (os._exit?)"),
    "checkpoints itself": (
        "from libcriu_py import checkpoint_here\ncheckpoint_here('x')",
        "the program checkpoints itself, so it must warm itself up before that; leave out --warm-up",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_program_that_cannot_be_warmed_up_makes_no_snapshot(one: Command, end: str) -> None:
    """It is said why, and what to do."""
    source, message = ENDS[end]
    once = "runs = 0\ndef once():\n    global runs\n    runs += 1\n    if runs > 1: raise RuntimeError('once only')\n"
    write(one.place / "state.py", once)
    script = write(one.place / "app.py", source + "\n")
    done = one("snapshot", "-o", one.place / "snap", "--warm-up", "", script)
    assert done.returncode == 1
    assert message in done.stderr
    assert "run_main" not in done.stderr
    assert not _exists(one.place / "snap")


def test_a_status_is_no_failure(one: Command) -> None:
    """Some programs say what they found by their status."""
    script = write(one.place / "app.py", "import sys\nsys.exit('found')\n")
    done = one("snapshot", "-o", one.place / "snap", "--warm-up", "a b", script)
    assert done.returncode == 0
    assert "found\nfound\nlibcriu-py: the warm-up with a b ended with status 1\n" in done.stderr
    run = one("run", "--no-fallback", one.place / "snap")
    assert (run.returncode, run.stderr) == (1, "found\n")


def _exists(path: Path) -> bool:
    """Return whether a snapshot was left, or a part of one."""
    return any(entry.name.startswith(path.name) for entry in path.parent.iterdir())
