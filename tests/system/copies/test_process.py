"""The restored process seen from the process that restored it, in each mode."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.snapshots import reseal
from tests.system.conftest import MODES, NATIVE, Mode
from tests.system.selfdump import SelfDump, take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account

OBEDIENT = """
import os, signal, sys, threading
from libcriu_py import after_restore, checkpoint
after_restore(lambda: os.write(2, b"after hook") if "loud" in sys.argv else None)
with checkpoint() as snap:
    pass
word = sys.argv[1] if len(sys.argv) > 1 else ""
if word == "exit":
    sys.exit(int(sys.argv[2]))
elif word == "die":
    os.kill(os.getpid(), int(sys.argv[2]))
elif word == "echo":
    sys.stdout.write(sys.stdin.read())
elif word == "both":
    sys.stdout.write("o" * 300_000)
    sys.stderr.write("e" * 300_000)
elif word == "fd":
    os.write(int(sys.argv[2]), b"passed")
elif word == "background":
    import subprocess
    subprocess.Popen(["sh", "-c", "read line; echo $line > " + sys.argv[2]], stdin=int(sys.argv[3]))
elif word == "wait":
    print("ready", flush=True)
    signal.pause()
elif word == "closed":
    os.write(int(sys.argv[2]), str([fd for fd in range(3) if not os.path.exists(f"/proc/self/fd/{fd}")]).encode())
elif word == "name":
    open(f"{sys.argv[2]}/{os.getpid()}.log", "w").close()
    print("ready", flush=True)
    sys.stdin.read()
elif word == "let-go":
    os.close(int(sys.argv[2]))
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module", params=MODES)
def obedient(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Iterator[SelfDump]:
    """One snapshot of a program that does what its arguments say, for each mode."""
    mode = mode_named(request.param)
    directory = mode.account.directory()
    yield take(mode, directory, OBEDIENT)
    shutil.rmtree(directory)


PROLOGUE = """
import os, select, signal, subprocess, sys, time
from libcriu_py import DEVNULL, PIPE, STDOUT, OperationRefused, SnapshotError, restore
from libcriu_py.errors import SnapshotMismatch
from libcriu_py.snapshot.manifest import Snapshot
snap = sys.argv[1]
"""


def test_statuses_and_signals(obedient: SelfDump) -> None:
    """The returncode is the exit status, or minus the number of the signal that killed the process."""
    code = (
        PROLOGUE
        + """
for args, expected in ((["exit", "0"], 0), (["exit", "200"], 200), (["die", "9"], -9), (["die", "15"], -15)):
    process = restore(snap, args)
    assert process.wait() == expected, (args, process.returncode)
    assert process.poll() == process.returncode == process.wait(1)
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1):
    with restore(snap, ["wait"], stdout=PIPE, encoding="utf-8") as process:
        assert process.stdout.readline() == "ready\\n"
        assert process.poll() is None
        assert str(process.pid) in repr(process)
        process.send_signal(number)
    assert process.returncode == -number
process.terminate()
process.kill()
with restore(snap, ["wait"], stdout=PIPE) as process:
    process.stdout.readline()
    try:
        process.wait(0.01)
    except subprocess.TimeoutExpired:
        process.kill()
print("ok")
"""
    )
    assert obedient.call(code).stdout == "ok\n"


def test_streams(obedient: SelfDump) -> None:
    """PIPE, STDOUT, DEVNULL, files and text work as with subprocess; communicate goes on after a timeout."""
    code = (
        PROLOGUE
        + """
big = "é" * 300_000
process = restore(snap, ["echo"], stdin=PIPE, stdout=PIPE, encoding="utf-8")
assert process.communicate(big) == (big, None)
process = restore(snap, ["both"], stdout=PIPE, stderr=PIPE)
out, err = process.communicate()
assert (len(out), len(err)) == (300_000, 300_000)
process = restore(snap, ["both"], stdout=PIPE, stderr=STDOUT)
assert len(process.communicate()[0]) == 600_000
assert restore(snap, ["both"], stdout=DEVNULL, stderr=DEVNULL).wait() == 0
with open("file", "w+") as file:
    restore(snap, ["echo"], stdin=open("/etc/hostname"), stdout=file).wait()
    file.seek(0)
    assert file.read() == open("/etc/hostname").read()
process = restore(snap, ["echo"], stdin=PIPE, stdout=PIPE)
try:
    # Nobody closes stdin before all is written: the first call runs into its time limit.
    process.stdin.write(b"first")
    process.stdout, kept = None, process.stdout
    process.wait(0.01)
except subprocess.TimeoutExpired:
    process.stdout = kept
    assert process.communicate(b" second")[0] == b"first second"
try:
    restore(snap, ["exit", "0"]).communicate(b"x")
except ValueError as error:
    assert "stdin=PIPE" in str(error)
print("ok")
"""
    )
    assert obedient.call(code, env={"PYTHONWARNINGS": "ignore::ResourceWarning"}).stdout == "ok\n"


def test_files_named_by_pid(obedient: SelfDump, directory_of: Callable[[Account], Path]) -> None:
    """Copies by criu that run at once have one pid, as `inspect` says; native ones have pids of their own."""
    code = (
        PROLOGUE
        + """
copies = [restore(snap, ["name", sys.argv[2]], stdin=PIPE, stdout=PIPE) for _ in range(2)]
for copy in copies:
    assert copy.stdout.readline() == b"ready\\n"
print(len(os.listdir(sys.argv[2])))
for copy in copies:
    copy.communicate()
"""
    )
    is_native = obedient.mode.name == NATIVE
    assert obedient.call(code, directory_of(obedient.mode.account)).stdout == ("2\n" if is_native else "1\n")
    command = [obedient.mode.account.python, "-m", "libcriu_py", "inspect", obedient.path]
    assert ("they share what they name by pid" in obedient.mode.run(command).stdout) == (not is_native)


def test_passed_descriptors_and_readiness(obedient: SelfDump) -> None:
    """pass_fds keep their numbers; wait_ready returns when the after-hooks are through."""
    code = (
        PROLOGUE
        + """
reading, writing = os.pipe()
high = os.dup2(writing, 77)
process = restore(snap, ["fd", "77"], pass_fds=[77])
assert process.wait() == 0
assert os.read(reading, 100) == b"passed"
errors_read, errors_write = os.pipe()
with restore(snap, ["exit", "3", "loud"], stderr=errors_write, wait_ready=True) as process:
    os.set_blocking(errors_read, False)
    assert os.read(errors_read, 100) == b"after hook"
    assert process.started
assert process.returncode == 3
print("ok")
"""
    )
    assert obedient.call(code).stdout == "ok\n"


def test_failed_restore_leaves_nothing(obedient: SelfDump, directory_of: Callable[[Account], Path]) -> None:
    """A refusal, by criu or of a plan, carries its reason, and leaves no process, zombie, descriptor or file."""
    copy = directory_of(obedient.mode.account) / "damaged"
    obedient.mode.run(["cp", "-a", obedient.path, copy], check=True)
    image = next(iter((*copy.glob("images/core-*.img"), *copy.glob("plan"))))
    image.write_bytes(bytes(image.stat().st_size))
    reseal(copy)
    code = (
        PROLOGUE
        + """
def state():
    place = f"/dev/shm/libcriu_py-{os.geteuid()}"
    shm = os.listdir(place) if os.path.isdir(place) else []
    return sorted(os.listdir("/proc/self/fd")), [name for name in shm if f"-{os.getpid()}-" in name]
before, native = None, Snapshot.open(sys.argv[1]).engine == "native"
for _ in range(3):
    try:
        restore(sys.argv[2], ["exit", "0"], stdin=PIPE, stdout=PIPE)
    except OperationRefused as error:
        assert error.operation == "restore" and error.reason and error.log_tail and error.log_path is None, vars(error)
        assert not native
    except SnapshotMismatch as error:
        assert native and "plan" in str(error), error
    else:
        assert False
    before = before or state()
assert before == state(), (before, state())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("ok")
"""
    )
    assert obedient.call(code, copy).stdout == "ok\n"


def test_background_processes_outlive_the_program(obedient: SelfDump, directory_of: Callable[[Account], Path]) -> None:
    """What the program left running goes on after its end, in a namespace too, as after a conventional start."""
    directory = directory_of(obedient.mode.account)
    code = (
        PROLOGUE
        + """
reading, writing = os.pipe()
process = restore(snap, ["background", sys.argv[2], "50"], pass_fds=[os.dup2(reading, 50)])
assert process.wait(20) == 0
os.close(reading), os.close(50)
os.write(writing, b"later\\n")
os.close(writing)
deadline = time.monotonic() + 20
while not (os.path.exists(sys.argv[2]) and open(sys.argv[2]).read()) and time.monotonic() < deadline:
    os.sched_yield()
print(open(sys.argv[2]).read().strip())
"""
    )
    done = obedient.call(code, directory / "out", env={"PYTHONWARNINGS": "ignore::ResourceWarning"})
    assert done.stdout == "later\n"


def test_asyncio_twin(obedient: SelfDump) -> None:
    """restore_async does not block the loop, and several copies are awaited at once."""
    code = """
    import asyncio, sys
    from libcriu_py import DEVNULL, PIPE, restore_async
    async def one(number):
        async with await restore_async(sys.argv[1], ["exit", str(number)]) as process:
            return await process.wait()
    async def main():
        process = await restore_async(sys.argv[1], ["echo"], stdin=PIPE, stdout=PIPE)
        assert (await process.communicate(b"text"))[0] == b"text"
        assert process.returncode == 0
        waiting = await restore_async(sys.argv[1], ["wait"], stdout=DEVNULL)
        try:
            await asyncio.wait_for(waiting.wait(), 0.05)
        except asyncio.TimeoutError:
            waiting.terminate()
        assert await waiting.wait() == -15, repr(waiting)
        print(await asyncio.gather(*(one(number) for number in range(4))))
    asyncio.run(main())
    """
    assert obedient.call(code).stdout == "[0, 1, 2, 3]\n"


def test_threads_restore_at_once(obedient: SelfDump) -> None:
    """restore() may be called from several threads."""
    code = (
        PROLOGUE
        + """
from concurrent.futures import ThreadPoolExecutor
def one(number):
    return restore(snap, ["exit", str(number)]).wait()
with ThreadPoolExecutor(4) as executor:
    print(list(executor.map(one, range(8))))
"""
    )
    assert obedient.call(code).stdout == "[0, 1, 2, 3, 4, 5, 6, 7]\n"


def test_status_where_ends_of_children_are_ignored(obedient: SelfDump) -> None:
    """It comes from the launcher, and not from the kernel, which tells of no child then."""
    code = (
        PROLOGUE
        + """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print([restore(snap, ["exit", "7"]).wait(), restore(snap, ["die", "9"]).wait()])
for _ in range(20):
    try:
        restore("/nowhere")
    except SnapshotError as error:
        assert "/nowhere is no snapshot" in str(error)
"""
    )
    assert obedient.call(code).stdout == "[7, -9]\n"


@pytest.mark.parametrize(
    ("redirection", "closed"), [("0<&-", [0]), ("0<&- 2>&-", [0, 2]), ("0<&- 1>&- 2>&-", [0, 1, 2])]
)
def test_streams_that_are_closed_here(
    obedient: SelfDump, directory_of: Callable[[Account], Path], redirection: str, closed: list[int]
) -> None:
    """They are closed in the copy, and those that are asked for are not."""
    out = directory_of(obedient.mode.account) / "out"
    code = (
        "import sys; from libcriu_py import *\n"
        "assert restore(sys.argv[1], ['closed', '44'], pass_fds=[44]).wait() == 0\n"
        "settings = {'stdout': DEVNULL, 'stderr': STDOUT}\n"
        "assert restore(sys.argv[1], ['closed', '44'], pass_fds=[44], **settings).wait() == 0\n"
        "assert restore(sys.argv[1], ['closed', '44'], stdout=PIPE, pass_fds=[44]).communicate() == (b'', None)\n"
    )
    start = shlex.join([str(obedient.mode.account.python), "-c", code, str(obedient.path)])
    done = obedient.mode.run(["/bin/bash", "-c", f"exec {start} 44>{out} {redirection}"])
    assert done.returncode == 0, done.stderr
    expected = (closed, [fd for fd in closed if fd == 0], [fd for fd in closed if fd != 1])
    assert out.read_text() == "".join(map(str, expected))


def test_nobody_else_holds_what_a_copy_was_given(obedient: SelfDump) -> None:
    """A pipe that was passed on, and stdout, end when the program closes them."""
    code = (
        PROLOGUE
        + """
reading, writing = os.pipe()
with restore(snap, ["let-go", str(writing)], stdin=PIPE, stdout=PIPE, pass_fds=[writing]) as process:
    os.close(writing)
    assert process.stdout.readline() == b"ready\\n"
    assert os.read(reading, 1) == b""
    assert process.poll() is None
    process.stdin.close()
    assert process.stdout.read() == b""
print(process.returncode)
"""
    )
    assert obedient.call(code).stdout == "0\n"


def test_a_killed_launcher_takes_its_copy_along(obedient: SelfDump) -> None:
    """The copy is gone when that is told, and its streams are closed."""
    code = (
        PROLOGUE
        + """
with restore(snap, ["wait"], stdout=PIPE) as process:
    process.stdout.readline()
    pidfd = os.dup(process.pidfd)
    (launcher,) = map(int, open(f"/proc/self/task/{os.getpid()}/children").read().split())
    os.kill(launcher, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    print(bool(poller.poll(0)), process.stdout.read())
"""
    )
    assert obedient.call(code).stdout == "True b''\n"


@pytest.mark.parametrize("dies", [True, False])
def test_a_copy_dies_with_its_caller_if_asked_to(obedient: SelfDump, dies: bool) -> None:  # noqa: FBT001
    """With the process, that is: the thread that has started it may end, and so may what is known of it in Python."""
    code = (
        PROLOGUE
        + """
import threading
kept, end = os.pipe()
feed, hold = os.pipe()
caller = os.fork()
if caller == 0:
    os.close(kept), os.close(hold)
    started = []
    def start():
        dies = sys.argv[2] == "True"
        process = restore(snap, ["wait"], stdin=feed, stdout=PIPE, pass_fds=[end], die_with_caller=dies)
        process.stdout.readline()
        started.append(process.pid)
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    os.kill(started[0], 0)
    os.write(end, b"%d" % started[0])
    signal.pause()
os.close(end)
pid = int(os.read(kept, 100))
os.kill(caller, signal.SIGKILL)
os.waitpid(caller, 0)
poller = select.poll()
poller.register(kept, select.POLLIN)
print(bool(poller.poll(20_000 if sys.argv[2] == "True" else 500)))
if sys.argv[2] == "False":
    os.kill(pid, signal.SIGKILL)
print(os.read(kept, 1))
"""
    )
    assert obedient.call(code, str(dies)).stdout == f"{dies}\nb''\n"
