"""The native engine in containers as engines make them by default, where criu neither is nor could work."""

from __future__ import annotations

import os
import subprocess
import textwrap
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.system import containers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.accounts import Account

NOBODY = 54321
"""An id that no file of accounts has."""
PLACE = "/mnt"
"""Where a container has its volume."""

LIMITS: dict[str, Any] = {"capabilities": (), "no_new_privs": True, "masked": True, "read_only": "root"}
"""As a container that is locked down."""

PROGRAMS = {
    "empty": ("", "print(sys.argv[1:], os.getuid())"),
    "pandas": (
        "import pandas\nframe = pandas.DataFrame({'a': range(1000)})",
        "print(sys.argv[1:], os.getuid(), frame.a.sum())",
    ),
    "busy threads": (
        """
        import threading, zlib
        go, sums, data = threading.Event(), [], bytes(1 << 20)
        started = [threading.Semaphore(0) for _ in range(5)]
        def work(number):
            while not go.is_set():
                total = zlib.crc32(data)
                started[number].release()
            sums.append(total)
        threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(5)]
        [thread.start() for thread in threads]
        [semaphore.acquire() for semaphore in started]
        """,
        "go.set(); [thread.join() for thread in threads]; print(sys.argv[1:], os.getuid(), len(set(sums)), len(sums))",
    ),
    "asyncio": (
        """
        import asyncio, concurrent.futures
        loop, pool = asyncio.new_event_loop(), concurrent.futures.ThreadPoolExecutor(4)
        async def ask():
            return await asyncio.gather(*(loop.run_in_executor(pool, pow, 2, n) for n in range(8)), asyncio.sleep(0, 7))
        loop.run_until_complete(ask())
        """,
        "print(sys.argv[1:], os.getuid(), loop.run_until_complete(ask())); pool.shutdown()",
    ),
}
BLOCKING_THREAD = """
import ctypes, threading
lock, ready = threading.Lock(), threading.Event()
lock.acquire()
def wait():
    everything = ctypes.c_uint64(2**64 - 1)
    ctypes.CDLL(None).syscall(14, 0, ctypes.byref(everything), None, 8)
    ready.set(), lock.acquire()
thread = threading.Thread(target=wait, daemon=True)
thread.start(), ready.wait()
"""
LIKE_MUTEXES = """
import ctypes, threading
numbers = [number for thread in range(1, 20) for number in (2, 2, thread, 2, 1, 0, 0, 0, 0, 0)]
numbers[:0] = [0, 0]
found = (ctypes.c_uint32 * len(numbers))(*numbers)
go = threading.Event()
threading.Thread(target=go.wait, daemon=True).start()
"""
"""Numbers as they stand in numpy's memory, which would be a mutex if a thread had the id in their midst."""
HELD_MUTEX = """
import ctypes, threading
pthread = ctypes.CDLL(None)
mutex, condition = (ctypes.c_uint64 * 5)(), (ctypes.c_uint64 * 6)()
mutex[2] = 1  # PTHREAD_MUTEX_RECURSIVE
locked = threading.Event()
def wait():
    pthread.pthread_mutex_lock(mutex)
    locked.set()
    pthread.pthread_cond_wait(condition, mutex)
threading.Thread(target=wait, daemon=True).start()
locked.wait()
pthread.pthread_mutex_lock(mutex)
"""
"""A mutex that the main thread got when another one began to wait for a condition with it."""
EXPECTED = {
    "empty": "",
    "pandas": " 499500",
    "busy threads": " 1 5",
    "asyncio": " [1, 2, 4, 8, 16, 32, 64, 128, 7]",
}


class Volume(NamedTuple):
    """
    A directory that containers have in common, with a program and its snapshot.

    Attributes:
        account: Whose interpreter runs it.
        path: The directory outside of containers.
        uid: Who runs the program.
    """

    account: Account
    path: Path
    uid: int

    def write(self, before: str, after: str) -> Volume:
        """Write the program, and return this."""
        lines = ("import os, sys\nfrom libcriu_py import checkpoint\n", textwrap.dedent(before), "{block}", after, "")
        block = "with checkpoint(sys.argv[1]):\n    pass"
        program = self.path / "program.py"
        program.write_text("\n".join(lines).replace("{block}", block), encoding="utf-8")
        subprocess.run(["/bin/chown", "-R", f"{self.uid}:{self.uid}", str(self.path)], check=True)
        return self

    def run(self, *argv: str | Path, **limits: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a container without criu, locked down unless told otherwise."""
        env = {"LIBCRIU_PY_CRIU": "/nowhere/criu", "PATH": "/nowhere", "HOME": "/nowhere", **limits.pop("env", {})}
        options = {**LIMITS, "uid": self.uid, "instead": {PLACE: self.path}, **limits}
        return containers.run(argv, account=self.account, env=env, **options)

    def dump(self, **limits: Any) -> subprocess.CompletedProcess[str]:
        """Let the program dump itself."""
        argv = [str(self.account.python), f"{PLACE}/program.py", f"{PLACE}/snap"]
        env = {"LIBCRIU_PY_ENGINE": "native"}
        return self.run(*argv, env=env, hostname="build", **limits)

    def start(self, *arguments: str, snapshot: str = "snap", **limits: Any) -> subprocess.CompletedProcess[str]:
        """Start a copy."""
        argv = [self.account.native_launcher, "--no-fallback", f"{PLACE}/{snapshot}", "--", *arguments]
        return self.run(*argv, **limits)


@pytest.fixture
def volume(account: Account, tmp_path: Path) -> Volume:
    """Return a volume of a user without an entry in /etc/passwd."""
    path = tmp_path / "volume"
    path.mkdir(mode=0o755)
    return Volume(account, path, NOBODY)


def answer(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a copy printed, who had nothing to complain of."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("engine", ["docker", "podman"])
@pytest.mark.parametrize("program", PROGRAMS)
def test_dump_and_copies_in_a_container_as_it_is(volume: Volume, program: str, engine: str) -> None:
    """Nothing is added: no right, no call, no tmpfs but /tmp, no account, no criu; and the program is pid 1."""
    volume.write(*PROGRAMS[program])
    limits: dict[str, Any] = {"listed_calls": engine, "pid_1": True}
    done = volume.dump(**limits)
    assert done.returncode == 0, done.stderr
    expected = f"['x', 'y'] {NOBODY}{EXPECTED[program]}\n"
    assert answer(volume.start("x", "y", **limits)) == expected
    elsewhere = {"pid_1": False, "busy_pids": 30, "other_mounts": True, "hostname": "elsewhere"}
    assert answer(volume.start("x", "y", **{**limits, **elsewhere})) == expected


def test_thread_that_blocks_all_signals(volume: Volume) -> None:
    """It is stopped by ptrace, which Docker's filter allows, and Podman's does not without a right."""
    volume.write(BLOCKING_THREAD, "lock.release(); print(thread.join(20), thread.is_alive())")
    refused = volume.dump(listed_calls="podman")
    assert refused.returncode == 1
    assert "has a thread that does not stop (python, thread " in refused.stderr
    done = volume.dump(listed_calls="docker", pid_1=True)
    assert done.returncode == 0, done.stderr
    assert answer(volume.start(listed_calls="podman", pid_1=True)) == "None False\n"


def test_snapshot_on_a_read_only_mount_and_moved(volume: Volume) -> None:
    """A copy needs nothing of where the snapshot was made, and writes nothing where it is."""
    assert volume.write(*PROGRAMS["pandas"]).dump(listed_calls="docker").returncode == 0
    (volume.path / "snap").rename(volume.path / "moved")
    expected = f"['x'] {NOBODY}{EXPECTED['pandas']}\n"
    assert answer(volume.start("x", snapshot="moved", listed_calls="docker", read_only="all")) == expected


def test_times_in_whole_seconds(volume: Volume) -> None:
    """As in the layers of images: a file that is mapped, and one that is open, are still the same."""
    before = f"import mmap\nfile = open('{PLACE}/data', 'rb')\nm = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)"
    (volume.path / "data").write_bytes(b"data" * 4096)
    assert volume.write(before, "print(m[:4], file.read(4))").dump(listed_calls="docker").returncode == 0
    for path in (volume.path, *volume.path.rglob("*")):
        os.utime(path, (int(path.stat().st_atime), int(path.stat().st_mtime)))
    assert answer(volume.start(listed_calls="docker")) == "b'data' b'data'\n"


def test_copy_of_a_copy(volume: Volume) -> None:
    """A copy dumps itself again, in a container too, and its copy needs the first snapshot no more."""
    again = (
        "block = bytearray(b'x') * (1 << 20)\nwith checkpoint(sys.argv[1]):\n    pass\nprint(sys.argv[1:], len(block))"
    )
    limits: dict[str, Any] = {"listed_calls": "docker", "pid_1": True}
    done = volume.write("", again).dump(**limits)
    assert done.returncode == 0, done.stderr
    done = volume.start(f"{PLACE}/second", **limits, env={"LIBCRIU_PY_ENGINE": "native"})
    assert done.returncode == 0, done.stderr
    (volume.path / "snap").rename(volume.path / "gone")
    assert answer(volume.start("x", snapshot="second", **limits)) == f"['x'] {1 << 20}\n"


def test_commands_of_the_documentation(volume: Volume) -> None:
    """An unmodified program, by the commands, under an engine that is named and under the one that is chosen."""
    volume.write("", "")
    (volume.path / "plain.py").write_text("import os, sys\nprint(sys.argv[1:], os.getuid())\n", encoding="utf-8")
    command = [str(volume.account.python), "-m", "libcriu_py"]
    done = volume.run(
        *command, "snapshot", "--engine", "criu", "-o", f"{PLACE}/criu", f"{PLACE}/plain.py", listed_calls="docker"
    )
    assert "needs neither criu nor rights with --engine native" in done.stderr
    done = volume.run(*command, "preflight", f"{PLACE}/plain.py", listed_calls="docker")
    assert (done.returncode, "engine: native" in done.stdout) == (0, True), done.stderr + done.stdout
    for engine, named in (("native", ["--engine", "native"]), ("auto", [])):
        argv = [*command, "snapshot", *named, "-o", f"{PLACE}/{engine}", f"{PLACE}/plain.py"]
        done = volume.run(*argv, listed_calls="docker", hostname="build")
        assert done.returncode == 0, done.stderr
        argv = [*command, "run", "--no-fallback", f"{PLACE}/{engine}", "--", "x"]
        assert answer(volume.run(*argv, listed_calls="docker", pid_1=True)) == f"['x'] {NOBODY}\n"


def test_automatic_snapshot_of_an_image(volume: Volume) -> None:
    """Made by the user of the image when that is built; used by that user, read-only too; others are told why not."""
    program = volume.path / "tool.py"
    program.write_text("import sys\nwarm = 'colorsys' in sys.modules\nimport colorsys\nprint(warm, sys.argv[1:])\n")
    volume.write("", "")
    python, launcher = str(volume.account.python), volume.account.native_launcher
    env = {"LIBCRIU_PY_CACHE": f"{PLACE}/cache"}
    command = [python, "-m", "libcriu_py", "auto"]
    start = [launcher, "--auto-start", python, f"{PLACE}/tool.py", "x"]
    built = volume.run(*command, "--build", f"{PLACE}/tool.py", "y", env=env, listed_calls="docker", hostname="build")
    assert (built.returncode, built.stdout) == (0, "False ['y']\n"), built.stderr
    for limits in ({"pid_1": True}, {"read_only": "all", "busy_pids": 30}):
        assert answer(volume.run(*start, env=env, listed_calls="docker", **limits)) == "True ['x']\n"
    other = {"env": env, "listed_calls": "docker", "uid": NOBODY + 1}
    assert answer(volume.run(*start, **other)) == "False ['x']\n"
    place = f"{PLACE}/cache belongs to user {NOBODY}, and this is user {NOBODY + 1}: starts are conventional; "
    advice = "set LIBCRIU_PY_CACHE to a directory of this user\n"
    assert answer(volume.run(*command, "--show", f"{PLACE}/tool.py", **other)).endswith(place + advice)
    refused = volume.run(*command, "--build", f"{PLACE}/tool.py", **other)
    assert (refused.returncode, refused.stderr) == (1, f"libcriu-py auto: no snapshot was made: {place}{advice}")
    shown = answer(volume.run(*command, "--show", f"{PLACE}/tool.py", env=env, read_only="all"))
    assert "cannot be written to: its snapshot is used as long as it fits, and none is made\n" in shown


def test_what_looks_like_a_mutex_of_a_thread_with_a_small_id(volume: Volume) -> None:
    """In containers threads have the ids 1, 2, 3, which stand in memory for other reasons."""
    done = volume.write(LIKE_MUTEXES, "print(sum(found[:20]))").dump(pid_1=True)
    assert done.returncode == 0, done.stderr
    assert answer(volume.start(pid_1=True)) == "17\n"


def test_held_mutex_of_a_thread_with_a_small_id(volume: Volume) -> None:
    """It is refused as elsewhere, also where another thread waits for a condition with it."""
    done = volume.write(HELD_MUTEX, "").dump(pid_1=True)
    assert done.returncode == 1
    assert "holds a recursive or error-checking mutex" in done.stderr
