"""What else the built-in resources put right in a copy: files, time, environment, caches, connections."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import by_criu
from tests.system.pairs import both, two_copies
from tests.system.selfdump import take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


def test_log_file_that_has_grown(mode: Mode, directory_of: Directories) -> None:
    """A log file may grow, or be rotated, between dump and restore; copies append to it."""
    code = """
    import json, logging, os, sys
    from libcriu_py import checkpoint
    logging.basicConfig(filename=sys.argv[1], filemode="w", format="%(process)d %(message)s", level="INFO")
    logging.info("before")
    with checkpoint():
        pass
    logging.info("copy")
    print(json.dumps(os.getpid()))
    """
    directory = directory_of(mode.account)
    log = directory / "log"
    dump = take(mode, directory, code, str(log))
    with log.open("a") as file:
        file.write("grown\n")
    pids = both(dump)
    first, *rest = log.read_text().splitlines()
    assert first.endswith(" before")
    assert rest == ["grown", *(f"{pid} copy" for pid in sorted(pids, key=lambda pid: rest.index(f"{pid} copy")))]
    log.rename(directory / "log.1")
    both(dump)
    assert len(log.read_text().splitlines()) == 2


def test_original_goes_on_logging(mode: Mode, directory_of: Directories) -> None:
    """The original, which goes on, and one whose dump failed, log as before."""
    code = """
    import logging, os, sys
    from libcriu_py import checkpoint
    logging.basicConfig(filename=sys.argv[1], format="%(message)s", level="INFO")
    logging.info("one")
    with checkpoint(then="continue") as snap:
        pass
    logging.info("two")
    """
    directory = directory_of(mode.account)
    log = directory / "log"
    take(mode, directory, code, str(log))
    assert log.read_text() == "one\ntwo\n"


def test_timers_of_event_loops(mode: Mode, directory_of: Directories) -> None:
    """A timer that had some time to go at the dump still has it in a copy, however long that was away."""
    code = """
    import asyncio, json, time
    from libcriu_py import checkpoint, clock
    async def main():
        loop = asyncio.get_running_loop()
        fired = []
        loop.call_later(1.5, fired.append, "first")
        loop.call_later(1000, fired.append, "never")
        ours = clock.monotonic()
        async with checkpoint() as snap:
            pass
        start = time.time()
        before = list(fired)
        while not fired:
            await asyncio.sleep(0.01)
        print(json.dumps([before, time.time() - start, fired, snap.downtime, clock.monotonic() - ours,
                          clock.downtime()]))
    asyncio.run(main())
    """
    dump = take(mode, directory_of(mode.account), code)
    taken = json.loads((dump.path / "manifest.json").read_text())["created"]
    # Longer than the timer had to go; nothing else can be waited for.
    time.sleep(max(0.0, taken + 2.5 - time.time()))
    for before, waited, fired, downtime, ours, noted in both(dump):
        assert before == []
        assert 0.3 < waited < 10
        assert fired == ["first"]
        assert downtime > 2.4
        assert noted == pytest.approx(downtime, abs=0.5)
        assert 0 < ours - waited < 1


def test_compensated_clock(mode: Mode, directory_of: Directories) -> None:
    """With compensate, time.monotonic() itself does not know of the downtime."""
    code = """
    import json, time
    from libcriu_py import checkpoint
    start = time.monotonic()
    with checkpoint(resources={"clock": {"compensate": True}}):
        start = time.monotonic()
    print(json.dumps([time.monotonic() - start, time.monotonic_ns() / 1e9 - start]))
    """
    dump = take(mode, directory_of(mode.account), code)
    time.sleep(2)  # the downtime; the dump itself takes some time, too
    for gone in both(dump):
        assert all(0 < seconds < 1.9 for seconds in gone)


ENVIRONMENT = """
import faulthandler, json, locale, os, sys, tempfile, tracemalloc, warnings
from libcriu_py import checkpoint
tempfile.gettempdir()
locale.setlocale(locale.LC_ALL, "")
options = list(sys.warnoptions)
with checkpoint():
    pass
def is_error():
    try:
        warnings.warn("x", FutureWarning)
    except FutureWarning:
        return True
    return False
from found_by_pythonpath import WHERE
print(json.dumps({
    "where": WHERE, "bytecode": sys.dont_write_bytecode, "tempdir": tempfile.gettempdir(),
    "error": is_error(), "old": "ignore::UserWarning" in sys.warnoptions,
    "filters": [item[2].__name__ for item in warnings.filters if item[0] == "ignore"],
    "numeric": locale.setlocale(locale.LC_NUMERIC, None), "prefix": sys.pycache_prefix,
    "digits": getattr(sys, "get_int_max_str_digits", lambda: 5000)(),
    "traced": tracemalloc.get_traceback_limit() if tracemalloc.is_tracing() else 0,
    "faults": faulthandler.is_enabled(),
}))
"""


def test_variables_that_still_take_effect(mode: Mode, directory_of: Directories) -> None:
    """Those of the restoring side apply: what is imported, warned of and traced, where files and locale come from."""
    directory = directory_of(mode.account)
    for name in ("old", "new"):
        (directory / name).mkdir()
        mode.account.give(directory / name)
        (directory / name / "found_by_pythonpath.py").write_text(f"WHERE = {name!r}\n")
    path = mode.account.environment().get("PYTHONPATH", "")
    before = {
        "PYTHONPATH": f"{directory}/old:{path}",
        "PYTHONWARNINGS": "ignore::UserWarning",
        "TMPDIR": f"{directory}/old",
        "PYTHONFAULTHANDLER": "1",
    }
    dump = take(mode, directory, ENVIRONMENT, env=before)
    after = {
        "PYTHONPATH": f"{directory}/new:{path}",
        "PYTHONWARNINGS": "error::FutureWarning",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": f"{directory}/new",
        "LC_ALL": "C",
        "PYTHONPYCACHEPREFIX": f"{directory}/cache",
        "PYTHONINTMAXSTRDIGITS": "5000",
        "PYTHONTRACEMALLOC": "3",
    }
    seen = json.loads(dump.run(env=after).stdout)
    assert seen["where"] == "new"
    assert seen["bytecode"] is True
    assert seen["tempdir"] == f"{directory}/new"
    assert seen["error"] is True
    assert seen["old"] is False
    assert "UserWarning" not in seen["filters"]
    assert seen["numeric"] == "C"
    assert [seen[name] for name in ("prefix", "digits", "traced", "faults")] == [f"{directory}/cache", 5000, 3, False]


def test_modules_that_came_later(mode: Mode, directory_of: Directories) -> None:
    """A module written after the dump is found, although its directory had been looked at or did not exist."""
    code = """
    import importlib.metadata, json, linecache, sys
    from libcriu_py import checkpoint
    sys.path[:0] = [sys.argv[1], sys.argv[1] + "/later"]
    try:
        import late
    except ImportError:
        pass
    linecache.getline(sys.argv[1] + "/source.py", 1)
    with checkpoint():
        pass
    import late, later_still
    print(json.dumps([late.X, later_still.X, linecache.getline(late.__file__.replace("late", "source"), 1)]))
    """
    directory = directory_of(mode.account)
    lib = directory / "lib"
    lib.mkdir()
    (lib / "source.py").write_text("old line\n")
    mode.account.give(lib)
    dump = take(mode, directory, code, str(lib))
    (lib / "later").mkdir()
    (lib / "late.py").write_text("X = 1\n")
    (lib / "source.py").write_text("a new line\n")
    (lib / "later" / "later_still.py").write_text("X = 2\n")
    assert both(dump) == [[1, 2, "a new line\n"]] * 2


def test_colours_of_consoles(mode: Mode, directory_of: Directories) -> None:
    """A console of rich made before the dump has the colours and the width of the new environment."""
    code = """
    import json
    from libcriu_py import checkpoint
    from rich.console import Console
    console, forced = Console(), Console(color_system="256", width=33)
    with checkpoint():
        pass
    print(json.dumps([console.no_color, console.width, forced.color_system, forced.width]))
    """
    dump = take(mode, directory_of(mode.account), code, env={"COLUMNS": "70"})
    assert json.loads(dump.run(env={"COLUMNS": "91", "NO_COLOR": "1"}).stdout) == [True, 91, "256", 33]
    assert json.loads(dump.run(env={"COLUMNS": "50"}).stdout) == [False, 50, "256", 33]


def test_threads_of_linear_algebra(mode: Mode, directory_of: Directories) -> None:
    """BLAS has as many threads as a copy has processors, fewer or more, unless the program chose their number."""
    code = """
    import json, os, sys
    import numpy as np
    import threadpoolctl
    from libcriu_py import checkpoint
    def threads():
        np.ones((64, 64)) @ np.ones((64, 64))
        return [each["num_threads"] for each in threadpoolctl.threadpool_info()]
    if sys.argv[1:] == ["7"]:
        threadpoolctl.threadpool_limits(7)
    before = threads()
    with checkpoint():
        pass
    print(json.dumps([before, threads()]))
    """
    every = len(os.sched_getaffinity(0))
    assert every > 1, "this takes two processors"
    one = ["taskset", "-c", str(min(os.sched_getaffinity(0)))]
    directory = directory_of(mode.account)
    script = write_program(mode, directory, code)
    command = [mode.account.python, "-m", "libcriu_py"]
    for name, before, after, chosen in (("fewer", [], one, []), ("more", one, [], []), ("chosen", [], one, ["7"])):
        made = mode.run([*before, *command, "snapshot", "--self", "-o", directory / name, script, *chosen])
        assert made.returncode == 0, made.stderr
        copy = mode.run([*after, *command, "run", "--no-fallback", directory / name])
        old, new = json.loads(copy.stdout)
        assert old
        assert set(old) == {7 if chosen else 1 if before else every}
        assert set(new) == {7 if chosen else 1 if after else every}
    # As where joblib starts workers: a new process would read these when it loads the library.
    for name, value, expected in (("more", "1", 1), ("more", "1,2", 1), ("more", "", every), ("chosen", "1", 7)):
        copy = mode.run([*command, "run", "--no-fallback", directory / name], env={"OMP_NUM_THREADS": value})
        assert set(json.loads(copy.stdout)[1]) == {expected}


@by_criu
def test_objects_of_the_own_process(mode: Mode, directory_of: Directories) -> None:
    """Those of psutil that were made before the dump stand for the copy's processes; others stay what they were."""
    code = """
    import json, os, subprocess, time
    import psutil
    from libcriu_py import checkpoint
    own, gone = psutil.Process(), psutil.Popen(["true"])
    gone.wait()
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with checkpoint():
        child = psutil.Popen(["cat"], **pipes)
        kept = {own, child}
        list(psutil.process_iter())
        before = own.create_time()
    told = {
        "running": [own.is_running(), child.is_running(), gone.is_running()],
        "same": own == psutil.Process() and own in kept and child in kept,
        "later": own.create_time() > before,
        "child": [item.pid == child.pid for item in own.children()], "nice": own.nice() == os.nice(0),
        "listed": own in list(psutil.process_iter()),
    }
    child.stdin.close()
    print(json.dumps({**told, "ended": child.wait()}))
    """
    expected = {
        "running": [True, True, False],
        "same": True,
        "later": True,
        "child": [True],
        "nice": True,
        "listed": True,
        "ended": 0,
    }
    assert two_copies(mode, directory_of(mode.account), code) == [expected] * 2


def test_start_time_of_the_process(mode: Mode, directory_of: Directories) -> None:
    """prometheus_client counts from the boot that the copy has."""
    code = """
    import json, time
    from libcriu_py import checkpoint
    from prometheus_client import PROCESS_COLLECTOR
    with checkpoint():
        PROCESS_COLLECTOR._btime = 1.0  # another machine's
    (started,) = [metric for metric in PROCESS_COLLECTOR.collect() if metric.name == "process_start_time_seconds"]
    print(json.dumps(time.time() - started.samples[0].value))
    """
    for age in two_copies(mode, directory_of(mode.account), code):
        assert -2 < age < 60  # btime is in whole seconds


def test_snapstart_hooks(mode: Mode, directory_of: Directories) -> None:
    """Hooks registered with snapshot_restore_py run, unchanged and in its order."""
    code = """
    import json
    from snapshot_restore_py import register_after_restore, register_before_snapshot
    from libcriu_py import checkpoint
    ran = []
    register_before_snapshot(ran.append, "before 1")
    register_before_snapshot(ran.append, "before 2")
    register_after_restore(ran.append, "after 1")
    @register_after_restore
    def second():
        ran.append("after 2")
    with checkpoint():
        pass
    print(json.dumps(ran))
    """
    expected = ["before 2", "before 1", "after 1", "after 2"]
    assert two_copies(mode, directory_of(mode.account), code) == [expected] * 2


def test_variables_that_cannot_take_effect(mode: Mode, directory_of: Directories) -> None:
    """Where a variable that only an interpreter's start heeds has changed, the program is started conventionally."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    script.write_text("import sys\nprint(sys.flags.dev_mode, sys.flags.hash_randomization)\n")
    command = [mode.account.python, "-m", "libcriu_py"]
    made = mode.run([*command, "snapshot", "-o", directory / "snap", script], env={"PYTHONHASHSEED": "3"})
    assert made.returncode == 0, made.stderr
    same = mode.run([*command, "run", directory / "snap"], env={"PYTHONHASHSEED": "3"})
    assert (same.stdout, same.stderr) == ("False 1\n", "")
    for variable, value in (("PYTHONDEVMODE", "1"), ("PYTHONHASHSEED", "4")):
        other = mode.run([*command, "run", directory / "snap"], env={variable: value})
        assert other.stdout == f"{variable == 'PYTHONDEVMODE'} 1\n"
        assert f"{variable} is '{value}', and was " in other.stderr
        assert "starting conventionally" in other.stderr
