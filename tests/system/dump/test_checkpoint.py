"""The self-checkpoint: outcomes, failures, and programs of all kinds."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.snapshot import record as launch_record
from libcriu_py.snapshot.record import Launch
from tests.system.cli_terminal import Terminal
from tests.system.conftest import NATIVE, by_criu
from tests.system.selfdump import PLAIN, REPORT, SelfDump, start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


REGULAR, NAME, BUILD_ID = 3, 6, 11
"""Fields of `file_entry` and `reg_file_entry` (images/fdinfo.proto and images/regfile.proto of CRIU)."""


def test_original_ends_with_status_0(mode: Mode, directory_of: Directories) -> None:
    """With then="exit" the original ends normally, and its atexit and finally code is left to the copies."""
    code = """
    import atexit, os
    from libcriu_py import checkpoint
    atexit.register(print, "at exit")
    try:
        with checkpoint():
            print("before")
        print("after")
    finally:
        print("finally", flush=True)
    """
    directory = directory_of(mode.account)
    script = write_program(mode, directory, code)
    done = start(mode, script, directory / "snap")
    assert done.returncode == 0, done.stderr
    assert "before\n" in done.stdout
    assert "finally" not in done.stdout
    snapshot = take(mode, directory, code, name="second")
    assert snapshot.run().stdout == "after\nfinally\nat exit\n"


def test_original_continues(mode: Mode, directory_of: Directories) -> None:
    """With then="continue" the original goes on as it was, after-hooks run, and a second snapshot can be made."""
    code = """
    import os, sys
    from libcriu_py import after_restore, before_checkpoint, checkpoint
    before_checkpoint(print, "before hook")
    after_restore(print, "after hook")
    group = os.getpgrp()
    here = os.getcwd()
    open_fds = sorted(os.listdir("/proc/self/fd"))
    base = os.environ.pop("LIBCRIU_PY_SNAPSHOT")
    for number in range(2):
        with checkpoint(f"{base}-{number}", then="continue") as snap:
            pass
        if snap.restored:
            print("copy", number, sys.argv[1:])
            sys.exit(3)
        assert (group, here) == (os.getpgrp(), os.getcwd())
        assert snap.stats["pages_written"] > 0
    assert open_fds == sorted(os.listdir("/proc/self/fd")), os.listdir("/proc/self/fd")
    print(snap.outcome.value, sys.stdin.read())
    with checkpoint(base):
        pass
    """
    directory = directory_of(mode.account)
    snapshot = take(mode, directory, code, input="stdin is back")
    for number in range(2):
        copy = snapshot._replace(path=directory / f"snap-{number}")
        done = copy.run("arg")
        assert done.stdout == f"after hook\ncopy {number} ['arg']\n", done.stderr
        assert done.returncode == 3


def test_hooks_run_in_order_around_the_dump(mode: Mode, directory_of: Directories) -> None:
    """Before-hooks run in reverse order in the original only, after-hooks in order in each copy."""
    code = """
    import sys
    from libcriu_py import after_restore, before_checkpoint, checkpoint, register
    ran = []
    class Thing:
        def before_checkpoint(self): ran.append("thing before")
        async def after_restore(self): ran.append("thing after")
    before_checkpoint(ran.append, "first before")
    after_restore(ran.append, "first after")
    thing = register(Thing())
    with checkpoint():
        pass
    print(ran)
    """
    dump = take(mode, directory_of(mode.account), code)
    for _ in range(2):
        assert dump.run().stdout == "['thing before', 'first before', 'first after', 'thing after']\n"


def test_hooks_of_copies_are_timed_and_named(mode: Mode, directory_of: Directories) -> None:
    """A copy knows how long hooks took on both sides; one that fails or takes too long is named, and others run."""
    code = """
    import sys, time
    from libcriu_py import after_restore, before_checkpoint, checkpoint
    def early(): pass
    def late(): time.sleep(1000)
    def broken(): raise ValueError("no database")
    before_checkpoint(early)
    after_restore(late)
    after_restore(broken)
    after_restore(early)
    snap = checkpoint(hook_limit=0.2)
    try:
        with snap:
            pass
    except Exception as group:
        print(*(str(error) for error in group.exceptions), sep="\\n")
    for timing in snap.timings:
        if "__main__" in timing.name:
            print(timing.name, timing.when, 0.2 <= timing.seconds < 5)
    """
    copy = take(mode, directory_of(mode.account), code).run()
    assert copy.stdout.splitlines() == [
        "after-restore hook __main__.late failed: TimeoutError: it took longer than 0.2 s",
        "after-restore hook __main__.broken failed: ValueError: no database",
        "__main__.early before False",
        "__main__.late after True",
        "__main__.broken after False",
        "__main__.early after False",
    ], copy.stderr


STEPS = {
    "block": ("raise ValueError('boom')", "", "ValueError: boom"),
    "hook": ("", "before_checkpoint(fail)", "HookError: before-checkpoint hook __main__.fail failed: KeyError"),
    "undo": ("", "before_checkpoint(fail)\nregister(both)", "ExceptionGroup"),
    "dump": ("", "os.environ['LIBCRIU_PY_PREFLIGHT'] = 'off'; io_uring()", "OperationRefused: criu refused to dump"),
    "publish": (
        "",
        "from libcriu_py.snapshot import staging; staging.write_records = fail",
        "KeyError: 'injected'",
    ),
    "criu": ("", "os.environ['LIBCRIU_PY_CRIU'] = '/bin/false'; os.environ.pop('LIBCRIU_PY_SERVICE', None)", ""),
}
"""Where a checkpoint fails: code of the block, code before it, and what the exception says."""
NATIVE_STEPS = {
    "dump": ("", "io_uring()", "NotEligible: the native engine cannot dump this process: it "),
    "publish": (
        "",
        "from libcriu_py.dump import native_engine; native_engine.publisher = lambda: ['/bin/false']",
        "CheckpointError: the native dump failed: the process that publishes it ended with status 1",
    ),
    "criu": (
        "",
        "from libcriu_py.dump import native_engine; native_engine.publisher = lambda: ['/nowhere']",
        "CheckpointError: the native dump failed: ",
    ),
}
"""The same where the native engine works differently."""


@pytest.mark.parametrize("step", STEPS)
def test_failure_leaves_the_process_as_it_was(step: str, mode: Mode, directory_of: Directories) -> None:
    """Whatever fails, hooks are undone, stdio works, nothing is left open, and no directory stays behind."""
    block, before, expected = {**STEPS, **(NATIVE_STEPS if mode.name == NATIVE else {})}[step]
    code = f"""
import os, sys
from libcriu_py import after_restore, before_checkpoint, checkpoint, register

def fail(*_):
    raise KeyError("injected")

def io_uring():
    import ctypes
    global ring
    params = ctypes.create_string_buffer(120)
    ring = ctypes.CDLL(None, use_errno=True).syscall(425, 4, params)
    if ring < 0:  # not allowed here: an inotify watch on a deleted file cannot be dumped either
        inotify = ctypes.CDLL(None).inotify_init()
        name = os.environ["LIBCRIU_PY_SNAPSHOT"] + "-deleted"
        open(name, "w").close()
        ctypes.CDLL(None).inotify_add_watch(inotify, os.fsencode(name), 2)
        os.unlink(name)

class Both:
    def before_checkpoint(self): ...
    def after_restore(self): fail()

class Thing:
    state = "up"
    def before_checkpoint(self): self.state = "down"
    def after_restore(self): self.state = "up"

both = Both()
{before}
thing = register(Thing())
fds = sorted(os.listdir("/proc/self/fd"))
links = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in range(3)]
state = (os.getcwd(), os.getpgrp(), dict(os.environ), sys.argv[:])
try:
    with checkpoint():
        {block or "pass"}
except BaseException as error:
    print(type(error).__name__ + ":", error, flush=True)
else:
    print("no exception")
assert state == (os.getcwd(), os.getpgrp(), dict(os.environ), sys.argv)
assert thing.state == "up"
assert sorted(os.listdir("/proc/self/fd")) == fds, os.listdir("/proc/self/fd")
assert [os.readlink(f"/proc/self/fd/{{fd}}") for fd in range(3)] == links
assert not os.path.exists(os.environ["LIBCRIU_PY_SNAPSHOT"])
assert sys.stdin.read() == "input"
try:
    os.waitpid(-1, 0)
except ChildProcessError:
    print("intact")
"""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, code)
    done = start(mode, script, directory / "snap", input="input")
    assert expected in done.stdout, done.stdout + done.stderr
    assert "no exception" not in done.stdout
    assert "intact\n" in done.stdout, done.stdout + done.stderr


def test_directory_that_is_not_empty_is_refused(mode: Mode, directory_of: Directories) -> None:
    """A snapshot is not written over, unless asked for; then the new one takes its place at once."""
    directory = directory_of(mode.account)
    dump = take(mode, directory)
    again = start(mode, dump.script, dump.path)
    assert again.returncode != 0
    assert "--replace" in again.stderr
    assert dump.report()["outcome"] == "restored"
    before = (dump.path / "manifest.json").stat().st_ino
    replaced = start(mode, dump.script, dump.path, options=["--replace"])
    assert replaced.returncode == 0, replaced.stderr
    assert (dump.path / "manifest.json").stat().st_ino != before
    assert dump.report()["outcome"] == "restored"
    assert [path.name for path in directory.iterdir() if "new" in path.name] == []


def test_sixteen_threads_go_on(mode: Mode, directory_of: Directories) -> None:
    """Threads alive at the dump are alive in each copy, where they were."""
    code = """
    import threading
    from libcriu_py import checkpoint
    go, lock, done = threading.Event(), threading.Lock(), []
    def work(number):
        started.wait()
        go.wait()
        with lock:
            done.append(number)
    started = threading.Barrier(17)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    started.wait()
    with checkpoint():
        pass
    go.set()
    for thread in threads:
        thread.join()
    print(sorted(done) == list(range(16)))
    """
    dump = take(mode, directory_of(mode.account), code)
    for _ in range(2):
        assert dump.run().stdout == "True\n"


def test_asyncio_program(mode: Mode, directory_of: Directories) -> None:
    """A checkpoint inside a running loop: async hooks run in it, tasks and timers go on."""
    code = """
    import asyncio, sys
    from libcriu_py import after_restore, before_checkpoint, checkpoint
    loops = []
    @before_checkpoint
    async def before():
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
    @after_restore
    async def after():
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
    async def main():
        event = asyncio.Event()
        waiter = asyncio.create_task(event.wait())
        await asyncio.sleep(0.001)
        async with checkpoint() as snap:
            pass
        event.set()
        print(await waiter, set(loops) == {asyncio.get_running_loop()}, snap.restored, sys.argv[1:])
    asyncio.run(main())
    """
    dump = take(mode, directory_of(mode.account), code)
    assert dump.run("x").stdout == "True True True ['x']\n"


@by_criu
def test_child_process(mode: Mode, directory_of: Directories) -> None:
    """A child with pipes to its parent is dumped and restored with it; that of the original ends with the original."""
    code = """
    import subprocess, sys
    from libcriu_py import checkpoint
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    with checkpoint():
        pass
    print(child.communicate(sys.argv[1])[0], child.returncode)
    """
    dump = take(mode, directory_of(mode.account), code)
    for text in ("one", "two"):
        assert dump.run(text).stdout == f"{text} 0\n"


WORKER = """
import multiprocessing, os, sys
from libcriu_py import checkpoint
multiprocessing.set_start_method("fork")
ours, theirs = multiprocessing.Pipe()
def work():
    theirs.recv()
    print("worker", flush=True)
    print("complaint", file=sys.stderr, flush=True)
    os.write(2, os.read(int(sys.argv[1]), 100))
worker = multiprocessing.Process(target=work, daemon=True)
copied = os.dup(0)
sys.argv[1] = str(copied)
ours_too = os.fdopen(os.dup(1), "w")
worker.start()
os.close(copied)
with checkpoint():
    pass
ours.send("go on")
worker.join()
print("parent", worker.exitcode, file=ours_too)
"""


@by_criu
def test_child_has_the_stdio_of_the_copy(mode: Mode, directory_of: Directories) -> None:
    """A worker that shares its parent's streams prints and reads where the copy does; so does a duplicate."""
    dump = take(mode, directory_of(mode.account), WORKER, "0", input="of the dump")
    for word in ("first", "second"):
        done = dump.run(input=word)
        assert (done.stdout, done.stderr) == ("worker\nparent 0\n", f"complaint\n{word}")
    merged = dump.run(input="", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert merged.stdout == "worker\ncomplaint\nparent 0\n"


@by_criu
def test_child_has_the_file_of_the_copy(mode: Mode, directory_of: Directories) -> None:
    """Output of the dump in a file is that of the copy afterwards."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, WORKER)
    with (directory / "dump").open("w+") as file:
        made = start(mode, script, directory / "snap", "0", stdout=file, stderr=subprocess.PIPE)
        size = file.tell()
    assert made.returncode == 0, made.stderr
    with (directory / "copy").open("w+") as file:
        file.write("before\n")
        file.flush()
        SelfDump(mode, directory / "snap", script).run(stdout=file, stderr=subprocess.DEVNULL)
    assert (directory / "copy").read_text() == "before\nworker\nparent 0\n"
    assert (directory / "dump").stat().st_size == size


def test_child_keeps_a_file_that_the_program_has_given_up(
    mode_named: Callable[[str], Mode], directory_of: Directories
) -> None:
    """What output was redirected to is nobody's stdio then, and a namespace has no mount for it: that is named."""
    code = """
    import os, subprocess
    from libcriu_py import checkpoint
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        with checkpoint():
            pass
    finally:
        child.communicate()
    """
    mode = mode_named("rootless")
    directory = directory_of(mode.account)
    with (directory / "dump").open("w") as file:
        script = write_program(mode, directory, code)
        made = start(mode, script, directory / "snap", stdout=file, stderr=subprocess.PIPE)
    assert made.returncode != 0
    assert f"it has {directory}/dump open" in made.stderr
    assert "such as subprocess.DEVNULL or PIPE" in made.stderr


@by_criu
def test_child_has_the_terminal_of_the_copy(mode: Mode, directory_of: Directories) -> None:
    """So it is where the dump was at a terminal, and where the copy is."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, WORKER)
    make = [*mode.command, "snapshot", "--self", "-o", str(directory / "snap"), str(script), "0"]
    with Terminal(make, owner=mode.account.uid) as terminal:
        assert "snapshot: " in terminal.rest()
        assert terminal.wait() == 0
    with Terminal([*mode.command, "run", "--no-fallback", str(directory / "snap")], owner=mode.account.uid) as terminal:
        terminal.expect("complaint\n")
        terminal.type("typed\n")
        assert terminal.rest() == "typed\ntyped\nparent 0\n"
        assert "worker\n" in terminal.seen


@by_criu
def test_pool_of_child_processes(mode: Mode, directory_of: Directories) -> None:
    """
    A multiprocessing pool works in each copy, or, where criu may not read its semaphores, the refusal says so.

    The files of POSIX semaphores are deleted; criu reads such a mapping through /proc/PID/map_files, which
    takes CAP_CHECKPOINT_RESTORE outside of any user namespace (proc_map_files_get_link, fs/proc/base.c).
    """
    code = """
    import multiprocessing, sys
    from libcriu_py import checkpoint
    def square(number):
        return number * number
    if __name__ == "__main__":
        multiprocessing.set_start_method("fork")
        with multiprocessing.Pool(3) as pool:
            assert pool.map(square, range(5)) == [0, 1, 4, 9, 16]
            with checkpoint():
                pass
            print(pool.map(square, range(int(sys.argv[1]))))
    """
    directory = directory_of(mode.account)
    if mode.value == "rootless":
        done = start(mode, write_program(mode, directory, code), directory / "snap")
        assert "create locks, queues and pools of multiprocessing after the checkpoint" in done.stderr
        return
    dump = take(mode, directory, code)
    for _ in range(2):
        done = dump.run("4")
        assert done.stdout == "[0, 1, 4, 9]\n", done.stderr


def test_function_and_decorator(mode: Mode, directory_of: Directories) -> None:
    """checkpoint_here() and the decorator are the same checkpoint."""
    function = """
    import sys
    from libcriu_py import checkpoint_here
    print(checkpoint_here().outcome, sys.argv[1:])
    """
    decorator = """
    import sys
    from libcriu_py import checkpoint
    @checkpoint()
    def warm(number):
        return number + 1
    print(warm(41), sys.argv[1:])
    """
    directory = directory_of(mode.account)
    dump = take(mode, directory, function, name="function")
    assert dump.run("a").stdout == "Outcome.RESTORED ['a']\n"
    assert take(mode, directory, decorator, name="decorator").run("b").stdout == "42 ['b']\n"


def test_copies_in_a_row(mode: Mode, directory_of: Directories) -> None:
    """200 copies, one after the other, from one process, which keeps no descriptor, zombie or file of any."""
    cycles = 200 if mode.name == "root" else 40
    dump = take(mode, directory_of(mode.account))
    done = dump.call(
        """
        import json, os, sys
        from libcriu_py import PIPE, restore
        def state():
            shm = os.listdir(f"/dev/shm/libcriu_py-{os.geteuid()}")
            return sorted(os.listdir("/proc/self/fd")), [name for name in shm if f"-{os.getpid()}-" in name]
        for number in range(int(sys.argv[2])):
            process = restore(sys.argv[1], [str(number)], stdin=PIPE, stdout=PIPE)
            out, _ = process.communicate()
            assert process.returncode == 10
            assert bytes.fromhex(json.loads(out)["argv"][0]) == str(number).encode()
            if number == 0:
                before = state()
        after = state()
        assert before == after, (before, after)
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("clean")
        """,
        str(cycles),
        timeout=110,
    )
    assert done.stdout == "clean\n"


def test_copies_at_the_same_time(mode: Mode, directory_of: Directories) -> None:
    """Several copies live at once: those whose pid is taken are in a pid namespace of their own."""
    dump = take(mode, directory_of(mode.account))
    done = dump.call(
        """
        import json, sys
        from libcriu_py import PIPE, restore
        copies = [restore(sys.argv[1], [str(n)], stdin=PIPE, stdout=PIPE, wait_ready=True) for n in range(5)]
        assert len({copy.pid for copy in copies}) == 5
        for number, copy in enumerate(copies):
            out, _ = copy.communicate(b"x")
            print(bytes.fromhex(json.loads(out)["argv"][0]).decode(), copy.returncode)
        """
    )
    assert done.stdout == "0 10\n1 10\n2 10\n3 10\n4 10\n"


def test_program_named_in_the_record_starts_conventionally_too(mode: Mode, directory_of: Directories) -> None:
    """The record's command is the program's conventional command line, and the manifest does not repeat it."""
    dump = take(mode, directory_of(mode.account), PLAIN, "old", "arguments")
    launch = launch_record.decode((dump.path / "launch").read_bytes())
    assert launch.command[1:] == (str(dump.script),)
    manifest = json.loads((dump.path / "manifest.json").read_text())
    assert manifest["argv"] == ["old", "arguments"]
    nested = (key for name in ("machine", "python", "memory") for key in manifest[name])
    assert not {*manifest, *nested} & {*Launch._fields, "format", "size", "key", "file"}
    assert all(file.sum or not file.size for file in launch.files.values())


def test_ordinary_process_is_told_what_to_do(account: Account, directory_of: Directories) -> None:
    """A program started where criu cannot dump it says so at once, and how to start it."""
    directory = directory_of(account)
    script = directory / "program.py"
    script.write_text(REPORT + "with checkpoint('snap'):\n    print('not reached')\n")
    import subprocess

    done = subprocess.run(
        [account.python, script],
        env=account.environment(LIBCRIU_PY_ENGINE="criu"),
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        **account.identity,
    )
    assert "libcriu-py snapshot -o DIR PROGRAM" in done.stderr
    assert "not reached" not in done.stdout


@by_criu
def test_images_leave_the_comparison_of_libraries_to_the_record(mode: Mode, directory_of: Directories) -> None:
    """They have no build-ids, for which each restore would map each library; size and time are in the record."""
    snapshot = take(mode, directory_of(mode.account))
    compared = {file.path for file in launch_record.decode((snapshot.path / "launch").read_bytes()).mapped}
    files = framing.read(str(snapshot.path / "images" / "files.img"), "files")
    regular = [Message.parse(data) for entry in files for data in entry.all_bytes(REGULAR)]
    libraries = [entry for entry in regular if ".so" in entry.text(NAME)]
    assert libraries
    assert {entry.text(NAME) for entry in libraries} <= compared
    assert not [field for entry in libraries for field, _, _ in entry.fields if field == BUILD_ID]
