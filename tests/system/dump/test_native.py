"""The native engine: what is put right in copies, who is refused, and who is criu's instead."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import NATIVE
from tests.system.selfdump import start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

AUTO = {"LIBCRIU_PY_ENGINE": "auto", "LIBCRIU_PY_MODE": "auto"}
WITH_CHILD = """
    import subprocess, sys
    from libcriu_py import checkpoint
    child = subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with checkpoint() as snap:
        pass
    print(snap.outcome.name, child.communicate("alive")[0])
"""


@pytest.fixture
def native(mode_named: Callable[[str], Mode]) -> Mode:
    """Return the native engine, used by an account without rights."""
    return mode_named(NATIVE)


def test_ids_of_process_and_threads(native: Mode, directory_of: Directories) -> None:
    """Whoever keeps an id of the dumped process, or of its threads, has that of the copy."""
    code = """
    import asyncio, json, multiprocessing, multiprocessing.util, os, threading
    from libcriu_py import checkpoint

    ids, stop = [], threading.Event()
    worker = threading.Thread(target=lambda: (stop.wait(), ids.append(threading.get_native_id())))
    worker.start()
    process, queue = multiprocessing.Process(target=os.getpid), multiprocessing.Queue()
    finalized = []
    finalizer = multiprocessing.util.Finalize(None, finalized.append, args=(1,), exitpriority=1)

    async def main():
        before = os.getpid()
        async with checkpoint():
            pass
        running = asyncio.get_running_loop()
        await asyncio.sleep(0)
        tasks = sorted(map(int, os.listdir("/proc/self/task")))
        known = sorted(thread.native_id for thread in threading.enumerate())
        stop.set()
        worker.join()
        process.start()
        process.join()
        queue.put("sent")
        assert queue.get() == "sent"
        finalizer()
        print(json.dumps({
            "other": before != os.getpid(), "tasks": tasks == known, "worker": ids == [worker.native_id],
            "main": threading.main_thread().native_id == os.getpid(), "loop": running.is_running(),
            "child": process.exitcode, "finalized": finalized,
        }))

    asyncio.run(main())
    """
    dump = take(native, directory_of(native.account), code)
    done = dump.run()
    assert json.loads(done.stdout or "{}") == {
        "other": True,
        "tasks": True,
        "worker": True,
        "main": True,
        "loop": True,
        "child": 0,
        "finalized": [1],
    }, done.stderr


def test_running_loop_of_another_thread(native: Mode, directory_of: Directories) -> None:
    """It finds itself running in a copy, which has another pid."""
    code = """
    import asyncio, threading
    from libcriu_py import checkpoint

    async def wait(ready, go):
        ready.set()
        while not go.is_set():
            await asyncio.sleep(0.01)
        found.append(asyncio.get_running_loop() is asyncio.get_event_loop())

    found, ready, go = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(wait(ready, go)))
    thread.start()
    ready.wait()
    with checkpoint():
        pass
    go.set()
    thread.join()
    print(found)
    """
    done = take(native, directory_of(native.account), code).run()
    assert (done.stdout, done.stderr) == ("[True]\n", "")


@pytest.mark.parametrize("library", ["bson.objectid", "redis", "kombu.common", "psutil"])
def test_libraries_that_compare_the_pid(library: str, native: Mode, directory_of: Directories) -> None:
    """What they renew in a forked child is renewed, and what they know of the own process is the copy's."""
    pytest.importorskip(library)
    code = """
    import sys
    uses = {
        "bson.objectid": "from bson import ObjectId; value = lambda: str(ObjectId())[8:18]",
        "redis": (
            "import redis; pool = redis.ConnectionPool(); pool.make_connection();"
            "value = lambda: (pool._checkpid(), pool.pid == __import__('os').getpid())[1]"
        ),
        "kombu.common": "from kombu.common import get_node_id as value",
        "psutil": (
            "import os, psutil; own = psutil.Process();"
            "value = lambda: own.pid == os.getpid() and own.is_running() and own == psutil.Process()"
        ),
    }
    exec(uses[sys.argv[1]])
    before = value()
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    print(value() is True or value() != before)
    """
    dump = take(native, directory_of(native.account), code, library)
    done = dump.run(library)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_arguments_in_ps(native: Mode, directory_of: Directories) -> None:
    """A copy shows its program with its own arguments, which may be longer than those at the dump."""
    code = """
    import sys
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    with open("/proc/self/cmdline") as file:
        words = file.read().split("\\0")
    print(words[1:] == [sys.argv[0], *sys.argv[1:], ""], len(words))
    """
    dump = take(native, directory_of(native.account), code)
    assert dump.run("x" * 5000, "", "ä y").stdout == "True 6\n"
    assert dump.run().stdout == "True 3\n"


def test_hand_over_that_fails(native: Mode, directory_of: Directories) -> None:
    """The process that the launcher has become starts the program conventionally itself, with nothing of the copy's."""
    code = """
    import os, signal, sys
    from libcriu_py import checkpoint
    from libcriu_py.dump import stdio

    def fail(*_):
        raise OSError("injected")

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = sorted(os.listdir("/proc/self/fd"))
    if not os.environ.get("LIBCRIU_PY_CONVENTIONAL"):
        own = open(__file__)
        stdio.reopen = fail
        signal.setitimer(signal.ITIMER_REAL, 1000)
    with checkpoint() as snap:
        pass
    timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    inherited = os.path.exists("/proc/self/fd/3") and os.readlink("/proc/self/fd/3")
    print(snap.outcome.name, sys.argv[1:], os.environ.get("MARK"), before, timer, inherited)
    """
    script = write_program(native, directory_of(native.account), code)
    snapshot = script.parent / "snap"
    done = start(native, script, snapshot)
    assert done.returncode == 0, done.stderr
    command = [native.account.python, "-m", "libcriu_py", "run"]
    inheriting = ["/bin/bash", "-c", 'exec "$@" 3</etc/passwd', "bash"]  # under a number that the program uses
    plain = native.run(
        [*inheriting, native.account.python, script, "a"],
        env={"LIBCRIU_PY_ENGINE": "simulate", "LIBCRIU_PY_CONVENTIONAL": "0", "MARK": "here"},
    )
    fallen = native.run([*inheriting, *command, snapshot, "--", "a"], env={"MARK": "here"})
    assert fallen.stdout == plain.stdout == "SIMULATED ['a'] here ['0', '1', '2', '3', '4'] False /etc/passwd\n"
    assert fallen.stderr == (
        "libcriu-py: starting conventionally: the restored process could not take over: injected\n"
    )
    assert native.run([*command, "--quiet", snapshot]).stderr == ""
    refused = native.run([*command, "--no-fallback", snapshot])
    assert (refused.returncode, refused.stdout) == (125, "")
    assert refused.stderr == "libcriu-py: the restored process could not take over: injected\n"


REFUSED = {
    "child": (
        "import subprocess as s; s.Popen(['/bin/cat'], stdin=s.PIPE, stdout=s.DEVNULL, stderr=s.DEVNULL)",
        "it has a child process (cat, pid ",
    ),
    "socket": (
        "import socket as s; a = s.create_server(('', 0)); b = s.create_connection(a.getsockname()); c = a.accept()",
        "socket",
    ),
    "session": ("os.setsid()", "it has changed its session since it was started"),
    "no_new_privs": ("import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)", "it has changed its capabilities since"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_who_is_refused(what: str, native: Mode, directory_of: Directories) -> None:
    """Where the engine cannot dump a process, it says why by name, and what to do."""
    setup, expected = REFUSED[what]
    code = f"""
    import os
    from libcriu_py import UnsupportedFeature, checkpoint
    {setup}
    try:
        with checkpoint(os.environ["LIBCRIU_PY_SNAPSHOT"], engine="native"):
            pass
    except UnsupportedFeature as error:
        print(error)
    print(os.path.exists(os.environ["LIBCRIU_PY_SNAPSHOT"]), flush=True)
    os._exit(0)
    """
    script = write_program(native, directory_of(native.account), code)
    done = native.run([native.account.python, script], env={"LIBCRIU_PY_SNAPSHOT": str(script.parent / "snap")})
    assert expected in done.stdout, done.stdout + done.stderr
    assert 'put that right before the dump, or use engine="criu"\nFalse\n' in done.stdout


@pytest.mark.parametrize("name", ["root", "rootless"])
def test_criu_takes_its_turn(name: str, mode_named: Callable[[str], Mode], directory_of: Directories) -> None:
    """What is not for the native engine is dumped by criu, where that may: here, or in a namespace made for it."""
    mode = mode_named(name)
    directory = directory_of(mode.account)
    script = write_program(mode, directory, WITH_CHILD)
    snapshot = directory / "snap"
    done = start(mode, script, snapshot, env=AUTO)
    assert done.returncode == 0, done.stderr
    starts_again = "libcriu-py: the native engine cannot dump this program, which has a child process (cat, pid "
    assert (starts_again in done.stderr) == (name == "rootless"), done.stderr
    command = [mode.account.python, "-m", "libcriu_py"]
    assert mode.run([*command, "run", "--no-fallback", snapshot], env=AUTO).stdout == "RESTORED alive\n"
    seen = mode.run([*command, "inspect", snapshot], env=AUTO).stdout
    assert "engine criu, mode " in seen
    assert "; not native, because it has a child process (cat, pid " in seen
    told = json.loads(mode.run([*command, "inspect", "--json", snapshot], env=AUTO).stdout)
    assert told["engine"] == "criu"
    assert told["why_not_native"].startswith("has a child process (cat, pid ")


def test_native_comes_first(native: Mode, directory_of: Directories) -> None:
    """Where the process is eligible, the native engine takes it, and restores refuse to do so by criu."""
    code = (
        "from libcriu_py import checkpoint\nwith checkpoint() as snap:\n    pass\nprint(snap.outcome.name, snap.stats)"
    )
    directory = directory_of(native.account)
    script = write_program(native, directory, code)
    done = start(native, script, directory / "snap", env=AUTO)
    assert (done.returncode, "starting it again" in done.stderr) == (0, False), done.stderr
    command = [native.account.python, "-m", "libcriu_py"]
    restored = native.run([*command, "run", "--engine", "native", "--no-fallback", directory / "snap"])
    assert restored.stdout.startswith("RESTORED {'pages_written': ")
    told = json.loads(native.run([*command, "inspect", "--json", directory / "snap"]).stdout)
    assert (told["engine"], told["criu"], len(told["processes"])) == ("native", None, 1)
    assert "engine native" in native.run([*command, "inspect", directory / "snap"]).stdout
    refused = native.run([*command, "run", "--engine", "criu", "--no-fallback", directory / "snap"])
    assert refused.returncode == 126
    assert "engine" in refused.stderr


@pytest.mark.parametrize("what", [[], ["--learn-pages", ""], ["--store", "store"]], ids=["map", "learn", "store"])
def test_what_is_for_criu_only(what: list[str], native: Mode, directory_of: Directories) -> None:
    """What rewrites criu's images says so, in one line."""
    dump = take(native, directory_of(native.account))
    done = native.run([native.account.python, "-m", "libcriu_py", "optimize", *what, dump.path], cwd=dump.path.parent)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"{dump.path} is of the native engine: " in done.stderr
