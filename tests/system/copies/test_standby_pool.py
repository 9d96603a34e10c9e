"""The life of a standby pool: its copies, its bounds, its end, and whom it is open to."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py import PIPE, CriuError, StandbyPool, restore
from libcriu_py.copies.standby.listener import socket_of
from libcriu_py.linux import this_process
from libcriu_py.linux.runtime_dir import private_directory
from tests.snapshots import reseal
from tests.system import standby
from tests.system.accounts import popen_as
from tests.system.conftest import MODES, Mode
from tests.system.csrc.test_launcher import launch, make, read_line
from tests.system.leaks import wait_for_end
from tests.system.standby import TIMEOUT, Pool, children, copies_of, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from libcriu_py.settings import RestoreSettings
    from tests.system.accounts import Account

LIBCRIU_PY = [sys.executable, "-m", "libcriu_py"]


@pytest.fixture(scope="module")
def mode(mode_named: Callable[[str], Mode]) -> Mode:
    """Return the first mode, of whoever runs the tests."""
    return mode_named(MODES[0])


@pytest.fixture(scope="module", name="snapshot")
def snapshot_fixture(mode: Mode) -> Iterator[Path]:
    """Yield a snapshot."""
    directory = mode.account.directory()
    yield make(mode, directory, standby.PROGRAM)
    shutil.rmtree(directory)


def run(mode: Mode, snapshot: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Start the program by the native launcher, without a terminal, and wait for its end."""
    argv = [*launch(mode.account), "--no-fallback", snapshot, "--", *args]
    done: subprocess.CompletedProcess[str] = mode.run(argv, start_new_session=True)
    return done


def start(mode: Mode, snapshot: Path, *args: str) -> subprocess.Popen[str]:
    """Start the program so, its input and output pipes."""
    argv = [*launch(mode.account), "--no-fallback", snapshot, "--", *args]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return popen_as(mode.account, argv, env=mode.env, text=True, start_new_session=True, **pipes)


def supervisors() -> set[int]:
    """Return the supervisors of copies that this process has restored."""
    return standby.supervisors_of(os.getpid())


def supervisor_of(launcher: subprocess.Popen[str]) -> int:
    """Return the supervisor of the copy that a launcher has, that of what its pidfd is of."""
    for info in Path(f"/proc/{launcher.pid}/fdinfo").iterdir():
        words = info.read_text().split()
        if "Pid:" in words:
            pid = int(words[words.index("Pid:") + 1])
            while pid > 1 and name_of(pid) != "lcp-supervisor":
                pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            if pid > 1:  # one is of the launcher's parent
                return pid
    message = "the launcher has no pidfd"
    raise AssertionError(message)


def has_pool(snapshot: Path) -> bool:
    """Return whether there is a socket of a pool, dead or alive."""
    return Path(socket_of(str(snapshot))).exists()


# ---- copies ----------------------------------------------------------------


def test_killed_copy_is_replaced(mode: Mode, snapshot: Path) -> None:
    """A copy that ends while it waits is replaced, whether it or its supervisor was killed."""
    with StandbyPool(snapshot, size=2, mode=mode.value) as pool:
        for whose in ("supervisor", "copy"):
            pool.wait_ready(TIMEOUT)
            before = supervisors()
            assert len(before) == 2
            supervisor = min(before)
            victim = supervisor if whose == "supervisor" else min(copies_of(supervisor))
            os.kill(victim, signal.SIGKILL)
            deadline = time.monotonic() + TIMEOUT
            # The launcher reaps its supervisor before the pool knows of that.
            while (supervisor in (now := supervisors()) or len(now) < 2) and time.monotonic() < deadline:
                select.poll().poll(50)
        for _ in range(2):
            pool.wait_ready(TIMEOUT)
            assert run(mode, snapshot, "end", "4").returncode == 4
        assert pool.served == 2


def test_replaced_snapshot_is_followed(mode: Mode, tmp_path: Path) -> None:
    """When a snapshot is made anew, its copies take the place of the old ones."""
    snapshot = make(mode, tmp_path, "print('old')")
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        assert run(mode, snapshot).stdout == "old\n"
        before = socket_of(str(snapshot))
        (tmp_path / "program.py").write_text("print('new')")
        argv = [*LIBCRIU_PY, "snapshot", "--replace", "-o", snapshot, tmp_path / "program.py"]
        assert mode.run(argv).returncode == 0
        after = socket_of(str(snapshot))
        assert after != before
        assert run(mode, snapshot).stdout == "new\n"  # the pool need not know of it yet, but may
        served = pool.served
        deadline = time.monotonic() + TIMEOUT
        while not Path(after).exists() and time.monotonic() < deadline:
            select.poll().poll(50)
        pool.wait_ready(TIMEOUT)
        assert run(mode, snapshot).stdout == "new\n"
        assert pool.served == served + 1
        assert not Path(before).exists()


def test_copies_from_python(mode: Mode, snapshot: Path) -> None:
    """`restore` takes a copy too, where it is asked to, with pipes and passed descriptors."""
    reading, writing = os.pipe()
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool, os.fdopen(reading):
        pool.wait_ready(TIMEOUT)
        waiting = waiting_copy()
        settings: RestoreSettings = {"stdin": PIPE, "stdout": PIPE, "mode": mode.value, "die_with_caller": True}
        more: RestoreSettings = {**settings, "encoding": "utf-8", "pass_fds": [writing], "cwd": "/", "standby": True}
        with restore(snapshot, ["report"], **more) as process:
            os.close(writing)
            assert process.from_pool
            assert process.pid == waiting  # also if it has ended already
            out, _ = process.communicate()
        told = json.loads(out)
        assert told[1] == "/"
        assert str(writing) in told[6]
        assert process.returncode == 0
        pool.wait_ready(TIMEOUT)
        with restore(snapshot, ["end", "9"], **settings) as process:
            assert not process.from_pool
        assert (process.returncode, pool.served) == (9, 1)


def test_what_a_program_leaves_running_lives_on(mode: Mode, snapshot: Path) -> None:
    """A process that the program has started outlives it, and the pool."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        (supervisor,) = supervisors()
        (launcher,) = (child for child in children(os.getpid()) if supervisor in children(child))
        # As where a pid of the image was taken, also for root.
        is_isolated = os.readlink(f"/proc/{supervisor}/ns/pid") != os.readlink("/proc/self/ns/pid")
        process = start(mode, snapshot, "daemon")
        told = int(read_line(process))
        assert process.communicate()[0] == ""
        assert process.returncode == 0
        assert pool.served == 1
        # In a namespace the supervisor is pid 1, and stays; without one it ends with the program.
        left = standby.descendants(supervisor) if is_isolated else {told}
    left = {pid for pid in left if name_of(pid)}
    assert left
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_for_end(left | {supervisor, launcher}, TIMEOUT)
    # Where the copy outlived the pool, its launcher is reaped when the next process is restored.
    with restore(snapshot, ["end", "0"], mode=mode.value) as process:
        assert process.wait(TIMEOUT) == 0
    assert launcher not in children(os.getpid())


def waiting_copy(but: int = 0) -> int:
    """Return the copy that waits in a pool of one; `but` is one that no longer does."""
    (pid,) = {pid for supervisor in supervisors() for pid in copies_of(supervisor) if name_of(pid)} - {but}
    return pid


def minor_faults(pid: int) -> int:
    """Count the page faults of a process (proc(5), minflt)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])


def settled_faults(pid: int, least: int) -> int:
    """Wait until a process has had so many faults and has no more of them; gives their number."""
    deadline = time.monotonic() + TIMEOUT
    before, now = -1, minor_faults(pid)
    while now < least or now != before:
        assert time.monotonic() < deadline, f"{now} faults, not {least}"
        select.poll().poll(50)
        before, now = now, minor_faults(pid)
    return now


def test_copies_fetch_the_pages_that_programs_use(mode: Mode, snapshot: Path) -> None:
    """When a program has been seen, copies that wait get the pages of its start ahead of their use."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        first = waiting_copy()
        idle = settled_faults(first, 0)
        with start(mode, snapshot, "faults") as process:
            without = int(read_line(process)) - idle
            pool.wait_ready(TIMEOUT)
            # The program stays until it has been looked at, and the next copy has what was found.
            idle = settled_faults(waiting_copy(but=first), idle + without // 2)
            process.communicate("x\n")
        with start(mode, snapshot, "faults") as process:
            fetched = int(read_line(process)) - idle
            process.communicate("x\n")
        assert pool.served == 2
    assert fetched < without / 4


MOUNTS = """
import ctypes, os, subprocess, sys
from libcriu_py import StandbyPool

MS_REC, MS_PRIVATE = 1 << 14, 1 << 18
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None) == 0
directory = sys.argv[2].encode()
with StandbyPool(sys.argv[1], size=2) as pool:
    for name in (None, b"new"):
        if name is not None:
            assert libc.mount(b"new", directory, b"tmpfs", 0, None) == 0
            os.close(os.open(directory + b"/new", os.O_CREAT))
        pool.wait_ready(50)
        processes = [subprocess.Popen([*sys.argv[3:]], stdin=-1, stdout=-1) for _ in range(2)]
        print([process.stdout.readline() for process in processes], pool.served, flush=True)
        for process in processes:
            process.communicate()
    libc.umount2(directory, 2)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_copies_see_what_is_mounted_while_they_wait(mode: Mode, snapshot: Path, tmp_path: Path) -> None:
    """Where new mounts do not reach the namespace of a copy, that copy is not given away."""
    launcher = [*launch(mode.account), "--no-fallback", snapshot, "--", "listing", tmp_path]
    argv = ["/usr/bin/unshare", "--mount", sys.executable, "-c", MOUNTS, snapshot, tmp_path, *launcher]
    done = mode.run(argv, start_new_session=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "[b'[]\\n', b'[]\\n'] 2"
    assert done.stdout.splitlines()[1].startswith("[b\"['new']\\n\", b\"['new']\\n\"]")


# ---- bounds ----------------------------------------------------------------


def test_memory_is_bounded(mode: Mode, snapshot: Path) -> None:
    """As many wait as fit; where not one does, that is said."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        (supervisor,) = supervisors()
        (copy,) = copies_of(supervisor)
        rollup = Path(f"/proc/{copy}/smaps_rollup").read_text().split()
        one = int(rollup[rollup.index("Pss:") + 1]) / 1024
    # More than two fit, since what they share counts once; a second one is made only where it would fit without that.
    with StandbyPool(snapshot, size=50, max_memory=2.1 * one, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        assert 2 <= pool.waiting < 50
    said: list[str] = []
    with StandbyPool(snapshot, max_memory=0.5, mode=mode.value, report=said.append) as pool:
        pool.wait_ready(TIMEOUT)
        assert pool.waiting == 0
        assert run(mode, snapshot, "end", "3").returncode == 3
    assert len(said) == 1
    assert said[0].endswith("MiB, and all together may take only 0.5 MiB")


def test_idle_copies_end(mode: Mode, snapshot: Path) -> None:
    """Without a request none waits any more, until the next, which is served by a restore."""
    with StandbyPool(snapshot, size=2, idle_timeout=1.5, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        before = supervisors()
        assert len(before) == 2
        wait_for_end(before, TIMEOUT)
        assert run(mode, snapshot, "end", "3").returncode == 3
        assert pool.served == 0
        pool.wait_ready(TIMEOUT)
        assert run(mode, snapshot, "end", "4").returncode == 4
        assert pool.served == 1


# ---- its end ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_command_ends_by_a_signal(mode: Mode, snapshot: Path, number: signal.Signals) -> None:
    """The command says when its copies wait, ends with status 0 and takes them along; one in use goes on."""
    argv = [*LIBCRIU_PY, "pool", snapshot, "--size", "2"]
    with popen_as(mode.account, argv, env=mode.env, stdout=subprocess.PIPE, text=True) as command:
        assert read_line(command) == f"2 copies of {snapshot} are waiting"
        assert has_pool(snapshot)
        process = start(mode, snapshot, "echo")
        assert read_line(process) == "ready"
        assert children(process.pid) == set()
        asked = mode.run([*LIBCRIU_PY, "pool", "--status", "--json", snapshot])
        assert (asked.returncode, json.loads(asked.stdout)["served"]) == (0, 1)
        told = mode.run([*LIBCRIU_PY, "pool", "--status", snapshot]).stdout
        assert (" waiting; 1 run had one\n" in told, str(snapshot) in told) == (True, True)
        command.send_signal(number)
        assert command.wait(TIMEOUT) == 0
        assert not has_pool(snapshot)
        asked = mode.run([*LIBCRIU_PY, "pool", "--status", snapshot])
        assert (asked.returncode, asked.stdout) == (1, f"{snapshot} has no pool\n")
        out, _ = process.communicate("x\n", TIMEOUT)
        assert (process.returncode, out) == (0, "got x\nover\n")


def test_killed_pool_leaves_nothing(mode: Mode, snapshot: Path) -> None:
    """Waiting copies end with the pool, one in use goes on, and the next run removes the socket."""
    pool = Pool(mode, snapshot, size=3)
    assert pool.stock() == (3, 0)
    process = start(mode, snapshot, "echo")
    assert read_line(process) == "ready"
    assert pool.stock() == (3, 1)
    supervised = pool.supervisors()
    assert len(supervised) == 4
    used = {supervisor_of(process)}
    pool.process.kill()
    pool.process.communicate()
    wait_for_end(supervised - used, TIMEOUT)
    assert has_pool(snapshot)
    assert run(mode, snapshot, "end", "3").returncode == 3
    assert not has_pool(snapshot)
    out, _ = process.communicate("x\n", TIMEOUT)
    assert (process.returncode, out) == (0, "got x\nover\n")


TREE = """
import os, signal, sys
from libcriu_py import checkpoint

child = os.fork()
if child == 0:
    signal.pause()
    os._exit(0)
with checkpoint():
    pass
os.kill(child, signal.SIGTERM)
print(os.waitpid(child, 0) == (child, signal.SIGTERM))
"""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("isolated", [False, True])
def test_waiting_copy_ends_with_its_processes(mode: Mode, tmp_path: Path, isolated: bool, late: bool) -> None:  # noqa: FBT001
    """What was dumped with the program ends with the copy that nobody has taken, also if that ends first by itself."""
    snapshot = make(mode, tmp_path, TREE)
    with Pool(mode, snapshot, size=1 + isolated) as pool:
        assert pool.stock().waiting == 1 + isolated
        first = start(mode, snapshot)
        assert first.communicate(timeout=TIMEOUT)[0] == "True\n"
        assert pool.stock().served == 1
        below = {pid for supervisor in pool.supervisors() for pid in standby.descendants(supervisor)}
        assert len(below) >= 2 * (1 + isolated)
        supervisors = pool.supervisors() if late else set()
        roots = {root for supervisor in supervisors for root in copies_of(supervisor)}
        for supervisor in supervisors:
            while len(os.listdir(f"/proc/{supervisor}/fd")) > 2:  # it tells of a copy before it closes its socket
                select.poll().poll(1)
            os.kill(supervisor, signal.SIGSTOP)
        pool.process.kill()
        pool.process.communicate()
        wait_for_end(roots, TIMEOUT)
        for supervisor in supervisors:
            os.kill(supervisor, signal.SIGCONT)
        wait_for_end(below, TIMEOUT)
        assert not {pid for pid in below if name_of(pid) and Path(f"/proc/{pid}/exe").exists()}
    assert start(mode, snapshot).communicate(timeout=TIMEOUT)[0] == "True\n"


def test_new_pool_takes_the_place_of_a_killed_one(mode: Mode, snapshot: Path) -> None:
    """A socket that nobody listens on is no obstacle; one that somebody listens on is."""
    with Pool(mode, snapshot, size=1) as killed:
        killed.stock()
        killed.process.kill()
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        with pytest.raises(CriuError, match="this snapshot already has a standby pool"):
            StandbyPool(snapshot, mode=mode.value).serve()
        assert run(mode, snapshot, "end", "3").returncode == 3
        assert pool.served == 1


def test_stopped_pool_keeps_nobody_waiting(mode: Mode, snapshot: Path) -> None:
    """A pool that does not answer is passed over."""
    with Pool(mode, snapshot, size=1) as pool:
        pool.stock()
        pool.process.send_signal(signal.SIGSTOP)
        try:
            assert run(mode, snapshot, "end", "3").returncode == 3
        finally:
            pool.process.send_signal(signal.SIGCONT)
        assert pool.stock().waiting == 1  # what it gave to nobody has ended
        assert run(mode, snapshot, "end", "4").returncode == 4


def test_wrong_use(mode: Mode, snapshot: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What makes no sense is refused with a sentence."""
    with pytest.raises(ValueError, match="size must be at least 1"):
        StandbyPool(snapshot, size=0)
    with pytest.raises(ValueError, match="allow may name cgroup and terminal, not uid"):
        StandbyPool(snapshot, allow=["uid"])
    with pytest.raises(RuntimeError, match="not open"):
        StandbyPool(snapshot).wait_ready()
    for argv, status in ((["--size", "0", snapshot], 2), ([tmp_path], 1), ([], 2)):
        assert mode.run([*LIBCRIU_PY, "pool", *argv]).returncode == status


def test_snapshot_that_cannot_be_restored(mode: Mode, tmp_path: Path) -> None:
    """A pool without a single copy ends with criu's reason."""
    snapshot = make(mode, tmp_path, "")
    (image,) = (snapshot / "images").glob("core-*.img")
    image.write_bytes(b"x" * image.stat().st_size)
    reseal(snapshot)
    pool = StandbyPool(snapshot, mode=mode.value)
    with pytest.raises(CriuError, match="criu refused to restore"):
        pool.serve()
    with pool, pytest.raises(CriuError, match="criu refused to restore"):
        pool.wait_ready(TIMEOUT)
    assert not has_pool(snapshot)


# ---- security --------------------------------------------------------------


def test_socket_is_private(mode: Mode, snapshot: Path) -> None:
    """Only its user may connect, and only its user may enter the directory."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        path = Path(socket_of(str(snapshot)))
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


CONNECT = """
import socket, sys
from libcriu_py.linux import this_process
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
    try:
        probe.connect(sys.argv[1])
        probe.send(this_process.standby_description("auto"))
        print(probe.recv(16))
    except OSError as error:
        print(type(error).__name__)
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """Yield a directory beside the private ones, which everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="lcp-test-", dir=Path(private_directory()).parent))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_other_user_gets_nothing(mode: Mode, account: Account, snapshot: Path, open_directory: Path) -> None:
    """Another user cannot connect, and is hung up on where the modes of directory and socket would let him."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        path = open_directory / "link"
        os.link(socket_of(str(snapshot)), path)
        answers = []
        for permissions in (0o600, 0o666):
            path.chmod(permissions)
            with popen_as(account, [account.python, "-c", CONNECT, path], stdout=subprocess.PIPE, text=True) as other:
                answers.append(other.communicate(timeout=TIMEOUT)[0].strip())
        assert answers[0] == "PermissionError"
        assert answers[1] in {"b''", "ConnectionResetError", "BrokenPipeError"}
        assert pool.served == 0


LISTEN = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
    server.bind(sys.argv[1])
    server.listen()
    print("ready", flush=True)
    connection, _ = server.accept()
    print(connection.recv(65536), flush=True)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_other_users_pool_is_told_nothing(mode: Mode, account: Account, snapshot: Path, open_directory: Path) -> None:
    """A launcher hangs up on a pool of another user, and restores."""
    theirs, ours = open_directory / "theirs", Path(socket_of(str(snapshot)))
    with popen_as(account, [account.python, "-c", LISTEN, theirs], stdout=subprocess.PIPE, text=True) as other:
        assert read_line(other) == "ready"
        os.link(theirs, ours)
        try:
            assert run(mode, snapshot, "end", "3").returncode == 3
            assert other.communicate(timeout=TIMEOUT)[0] == "b''\n"
        finally:
            ours.unlink(missing_ok=True)  # any pool that begins removes what nobody listens on


def test_nonsense_is_refused(mode: Mode, snapshot: Path) -> None:
    """Whatever somebody says to the pool, or does not say, it goes on."""
    with StandbyPool(snapshot, size=1, mode=mode.value) as pool:
        pool.wait_ready(TIMEOUT)
        path = socket_of(str(snapshot))
        good = this_process.standby_description("auto")
        for said in (b"x", b"\xff\xfe:\n\0", good[:200], good.replace(b"Limits:", b"Limits: x"), good * 2):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as wrong:
                wrong.settimeout(TIMEOUT)
                wrong.connect(path)
                wrong.send(said)
                assert wrong.recv(16) == b"N"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.settimeout(TIMEOUT)
            silent.connect(path)
            assert silent.recv(16) == b""  # hung up on
        assert pool.served == 0
        assert run(mode, snapshot, "end", "4").returncode == 4
        assert pool.served == 1
