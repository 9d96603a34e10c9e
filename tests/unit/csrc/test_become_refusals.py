"""Where the launcher cannot become the process of a plan, it says why, and starts the program conventionally."""

from __future__ import annotations

import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.copies.order import DIE_WITH_CALLER, ENDED, TOLD, Order, receive
from libcriu_py.errors import CriuError
from libcriu_py.native.plan import MEMORY, PAGE, Area, Descriptor, File, Lock
from libcriu_py.privilege.mode import Privilege
from tests.plans import (
    CODE,
    COMMANDS,
    DONE,
    DUPLICATE,
    EPOLL,
    EVENTFD,
    FS,
    GROWS_DOWN,
    GUARD,
    LISTENER,
    MEMFD,
    OPEN,
    OTHER_END,
    PIPE,
    REQUEST,
    SHARED,
    plan_of,
    write_native,
)

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plans import Start

PR_SET_MDWE = 65


# ---- plans that are odd -----------------------------------------------------------


def extra(*areas: Area) -> dict[str, Any]:
    """Return a change of a plan that adds areas behind its own."""
    return {"areas": [*plan_of()[0].areas, *areas]}


HIGH = 0x50000000
PLAN = plan_of()[0]
FILE = Descriptor(3, OPEN, data=b"/dev/null")
ODD: dict[str, dict[str, Any]] = {
    "format": {"format": 1},
    "no areas": {"areas": ()},
    "area beyond memory": extra(Area(0x7FFFFFFFF000, 0x800000000000, 3)),
    "area at zero": {"areas": [Area(0, PAGE, 3), *PLAN.areas]},
    "area between pages": extra(Area(HIGH, HIGH + 1, 3)),
    "empty area": extra(Area(HIGH, HIGH, 3)),
    "areas overlap": extra(Area(FS, FS + PAGE, 3)),
    "area where the vdso is": extra(Area(PLAN.special[0], PLAN.special[0] + PAGE, 3)),
    "protection": extra(Area(HIGH, HIGH + PAGE, 8)),
    "flags": extra(Area(HIGH, HIGH + PAGE, 3, flags=1 << 15)),
    "advice": extra(Area(HIGH, HIGH + PAGE, 3, advice=1 << 4)),
    "no such file": extra(Area(HIGH, HIGH + PAGE, 3, file=1)),
    "offset": extra(Area(HIGH, HIGH + PAGE, 3, offset=1, file=0)),
    "offset of no file": extra(Area(HIGH, HIGH + PAGE, 3, offset=PAGE)),
    "behind its file": extra(Area(HIGH, HIGH + PAGE, 3, offset=1 << 30, file=0)),
    "memory of the snapshot shared": extra(Area(HIGH, HIGH + PAGE, 1, SHARED, 0)),
    "stack of a file": extra(Area(HIGH, HIGH + PAGE, 3, GROWS_DOWN, 0)),
    "guard with content": extra(Area(HIGH, HIGH + PAGE, 3, GUARD, 0)),
    "read into nothing": {"reads": [(HIGH, HIGH + PAGE, 0)]},
    "read into what nobody may write": {"reads": [(CODE, CODE + PAGE, 0)]},
    "read between pages": {"reads": [(FS + 8, FS + PAGE, 0)]},
    "reads overlap": {"reads": [(FS, FS + PAGE, 0), (FS, FS + PAGE, 0)]},
    "read of too much": {"reads": [(FS, FS + 2 * PAGE, 0)]},
    "path outside": {"files": [PLAN.files[0]._replace(path=b"../memory.img")]},
    "absolute path": {"files": [PLAN.files[0]._replace(path=b"/memory.img")]},
    "no path": {"files": [PLAN.files[0]._replace(path=b"")]},
    "writable": {"files": [PLAN.files[0]._replace(flags=3)]},
    "relative path": {"files": [PLAN.files[0], File(b"library", 1)]},
    "no threads": {"threads": 0},
    "resumes nowhere": {"resume": HIGH},
    "resumes in data": {"resume": FS},
    "no stack": {"stack": HIGH},
    "stack of bytes": {"stack": PLAN.stack + 1},
    "no thread-local memory": {"fs": COMMANDS},
    "vdso of another size": {"vdso": b"x"},
    "vdso outside": {"special": (PLAN.special[0], PLAN.special[1], PLAN.special[0], PLAN.special[1])},
    "in no vdso": {"special": (0, 0, 0, 0), "vdso": b"", "in_vdso": 1},
    "descriptor below": {"descriptors": [Descriptor(2, EVENTFD)]},
    "descriptor above": {"descriptors": [Descriptor(1 << 20, EVENTFD)]},
    "descriptor negative": {"descriptors": [Descriptor(-1, EVENTFD)]},
    "descriptor twice": {"descriptors": [Descriptor(3, EVENTFD), Descriptor(3, EVENTFD)]},
    "kind": {"descriptors": [Descriptor(3, 50)]},
    "large kind": {"descriptors": [Descriptor(3, 1 << 31)]},
    "flags of a file": {"descriptors": [Descriptor(3, OPEN, os.O_CREAT, data=b"/x")]},
    "relative file": {"descriptors": [Descriptor(3, OPEN, data=b"x")]},
    "file without a name": {"descriptors": [Descriptor(3, OPEN)]},
    "file with a NUL": {"descriptors": [Descriptor(3, OPEN, data=b"/a\0b")]},
    "half a pipe": {"descriptors": [Descriptor(3, PIPE, other=4, value=4096)]},
    "other half": {"descriptors": [Descriptor(3, OTHER_END)]},
    "two halves": {"descriptors": [Descriptor(3, PIPE, other=4, value=4096), Descriptor(5, OTHER_END)]},
    "half of a half": {
        "descriptors": [Descriptor(3, PIPE, other=4, value=1), Descriptor(4, OTHER_END), Descriptor(5, OTHER_END)]
    },
    "duplicate of nothing": {"descriptors": [Descriptor(3, DUPLICATE, other=4), Descriptor(4, EVENTFD)]},
    "two requests": {"descriptors": [Descriptor(3, REQUEST), Descriptor(4, REQUEST)]},
    "watch of nothing": {"descriptors": [Descriptor(3, EPOLL)], "watches": [(3, 4, 1, 0)]},
    "watch by no epoll": {"descriptors": [Descriptor(3, EVENTFD)], "watches": [(3, 1, 1, 0)]},
    "memfd without a name": {"descriptors": [Descriptor(3, MEMFD)]},
    "memfd with a NUL": {"descriptors": [Descriptor(3, MEMFD, data=MEMORY.pack(1, 0, 0, 0) + b"a\0b")]},
    "memfd that is too large": {"descriptors": [Descriptor(3, MEMFD, data=MEMORY.pack(1 << 63, 0, 0, 0))]},
    "memfd with other seals": {"descriptors": [Descriptor(3, MEMFD, data=MEMORY.pack(1, 0, 0, 64))]},
    "memfd of nothing": {"descriptors": [Descriptor(3, MEMFD, other=4, data=MEMORY.pack(1, 0, 0, 0))]},
    "mapped memfd of nothing": {"files": [PLAN.files[0], File(b"/memfd:x", 1, 0, 4, 3)]},
    "listener without an address": {"descriptors": [Descriptor(3, LISTENER, data=bytes(8))]},
    "listener at a relative path": {"descriptors": [Descriptor(3, LISTENER, value=1 << 32, data=bytes(8) + b"\1\0x")]},
    "listener with other permissions": {
        "descriptors": [Descriptor(3, LISTENER, value=1 << 32, other_offset=1 << 12, data=bytes(8) + b"\1\0/x")]
    },
    "lock of nothing": {"locks": [Lock(3, 1, 1)]},
    "lock of no file": {"descriptors": [Descriptor(3, EVENTFD)], "locks": [Lock(3, 1, 1)]},
    "lock of an unknown kind": {"descriptors": [FILE], "locks": [Lock(3, 4, 1)]},
    "lock of an unknown access": {"descriptors": [FILE], "locks": [Lock(3, 2, 2)]},
    "lock of a part": {"descriptors": [FILE], "locks": [Lock(3, 1, 1, 1, 1)]},
    "lock behind all": {"descriptors": [FILE], "locks": [Lock(3, 2, 1, 1 << 63)]},
    "lock of too much": {"descriptors": [FILE], "locks": [Lock(3, 2, 1, 1 << 62, 1 << 62)]},
}


@pytest.mark.parametrize("name", ODD)
def test_odd_plan(start: Start, name: str) -> None:
    """It is refused in one sentence, before anything is done with it."""
    plan, memory = plan_of()
    done = start(plan._replace(**ODD[name]), memory)
    assert (done.returncode, done.stdout) == (126, b"")
    assert done.stderr.count(b"\n") == 1
    assert b"its plan is " in done.stderr
    assert done.stderr.endswith(b"; make the snapshot anew\n")


@pytest.mark.parametrize("what", ["empty", "short", "long", "cut", "none", "link", "fifo"])
def test_file_that_is_no_plan(start: Start, launcher: str, tmp_path: Path, what: str) -> None:
    """It is refused, too; the snapshot's own checksum is not needed for that."""
    plan, memory = plan_of()
    data = plan.encode()
    contents = {"empty": b"", "short": data[:100], "long": data + b"\0", "cut": data[:-8]}
    snap = write_native(tmp_path / "snap", contents.get(what, data), memory)
    if what in {"none", "link", "fifo"}:
        (snap / "plan").unlink()
    if what == "link":
        (snap / "plan").symlink_to("memory.img")
    if what == "fifo":
        os.mkfifo(snap / "plan")
    done = subprocess.run([launcher, "--no-fallback", snap], check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"its plan " in done.stderr


def test_chance(start: Start) -> None:
    """A plan with random changes is refused, or falls back, or its process ends; nothing hangs."""
    chance = random.Random(15)
    plan, memory = plan_of("")
    whole = plan._replace(descriptors=[Descriptor(3, EVENTFD, 2), Descriptor(4, EPOLL, 2)], watches=[(4, 3, 1, 0)])
    data = whole.encode()
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(64, len(data) - len(plan.vdso))] = chance.randrange(256)
        done = start(bytes(damaged), memory, options=())
        assert done.returncode in {0, DONE, -signal.SIGSEGV, -signal.SIGILL, -signal.SIGBUS}
        assert done.stdout in {b"", b"conventionally\n"}


# ---- the conventional start -------------------------------------------------------------

SAYS = """
import os, signal, sys
print(sys.argv[1:], os.environ.get("X"), int(os.environ.get("LIBCRIU_PY_CONVENTIONAL", 0)) == os.getpid())
mask = sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ())))
status = open("/proc/self/status").read()
print(mask, status.partition("SigIgn:")[2].split()[0])
"""
PYTHON = (sys.executable, "-I", "-S", "-c", SAYS)


def set_signals() -> None:
    """Block one signal, and ignore two others."""
    signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1})
    for number in (signal.SIGUSR2, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_conventional_start(start: Start, when: str) -> None:
    """Before the jump, behind it and from the process itself it is the same start, after one line that says why."""
    plan, memory = plan_of("f", why="it was told to")
    reasons = {"before": "read nowhere", "between": "memory.img cannot be read", "after": "it was told to (errno 12)"}
    if when == "before":
        plan, reasons["before"] = plan._replace(xcr0=1 << 63, threads=2), "this processor lacks registers"
    if when == "between":
        plan = plan._replace(reads=[(FS, FS + PAGE, 1 << 40)])
    more: dict[str, Any] = {"command": PYTHON, "env": {"X": "y"}, "preexec_fn": set_signals}
    done = start(plan, memory, "a", "b c", options=(), **more)
    ignored = 1 << (signal.SIGUSR2 - 1) | 1 << (signal.SIGXFSZ - 1) | 1 << (signal.SIGPIPE - 1)
    assert done.returncode == 0
    said, blocked, seen = (
        done.stdout.decode().replace("\n", " ", 1).rpartition(" [")[0],
        *done.stdout.decode().split()[-2:],
    )
    assert (said, blocked) == (f"{['a', 'b c']} y True", f"[{int(signal.SIGUSR1)}]")
    assert int(seen, 16) & ~(3 << 31) == ignored  # without those of the C library, which no program changes
    assert done.stderr.startswith(b"libcriu-py: starting conventionally: ")
    assert reasons[when].encode() in done.stderr
    assert done.stderr.count(b"\n") == 1
    assert start(plan, memory, options=("-q",), **more).stderr == b""
    done = start(plan, memory, **more)
    assert (done.returncode, done.stdout) == (126 if when == "before" else 125, b"")
    assert done.stderr.startswith(b"libcriu-py: ")
    assert b"conventionally" not in done.stderr


def test_program_that_is_not_there(start: Start) -> None:
    """That is told, also by what is left of the launcher."""
    plan, memory = plan_of("f")
    done = start(plan, memory, options=(), command=("/nowhere/python",))
    assert done.returncode == 125
    assert done.stderr.endswith(b"libcriu-py: cannot be started either: /nowhere/python (errno 2)\n")


def test_program_on_path(start: Start) -> None:
    """It is found as a shell would find it."""
    plan, memory = plan_of("f")
    done = start(plan, memory, options=("-q",), command=("echo", "found"))
    assert (done.returncode, done.stdout) == (0, b"found\n")


def test_too_little_memory(start: Start) -> None:
    """A limit of the address space that the program does not fit in ends in the conventional start."""
    plan, memory = plan_of("o")
    plan = plan._replace(areas=[*plan.areas, Area(HIGH, HIGH + (1 << 30), 3)])
    limit = 1 << 29
    done = start(plan, memory, options=(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    assert (done.returncode, done.stdout) == (0, b"conventionally\n")
    assert b"memory of the snapshot cannot be mapped (errno 12)" in done.stderr


# ---- who may ------------------------------------------------------------------------------


def test_no_code_that_is_written(start: Start) -> None:
    """Where memory that was written must not become executable, the launcher works all the same."""

    def deny() -> None:
        ctypes.CDLL(None).prctl(PR_SET_MDWE, 1, 0, 0, 0)

    assert start(*plan_of("o"), preexec_fn=deny).stdout == b"ok\n"


def test_two_copies_know_different_addresses(start: Start) -> None:
    """What is left of the launcher until the process goes on is elsewhere each time, and far from what may grow."""
    found = set()
    for _ in range(5):
        plan, memory = plan_of("m")
        lines = start(plan, memory).stdout.decode().splitlines()
        (code,) = (int(line.split("-")[0], 16) for line in lines if line.endswith("libcriu-py-run"))
        assert all(abs(code - area.start) >= 1 << 30 for area in plan.areas)
        found.add(code)
    assert len(found) == 5


def test_scheduling(start: Start) -> None:
    """The kernel writes nothing where libc's thread-local memory was when it interrupts the process."""
    plan, memory = plan_of("xo")
    assert start(plan, memory).stdout == b"ok\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a snapshot of another user")
def test_snapshot_of_another_user(launcher: str, tmp_path: Path) -> None:
    """Not even root becomes a program that another user had started: it would run as root."""
    plan, memory = plan_of("o")
    snap = write_native(tmp_path / "snap", plan, memory, uid=1234)
    done = subprocess.run([launcher, "--no-fallback", snap], check=False, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"the program ran as uid 1234, this is uid 0" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a program that has root's rights")
def test_launcher_with_more_rights_than_its_caller(launcher: str, tmp_path: Path) -> None:
    """It becomes nothing, whoever owns the snapshot."""
    snap = write_native(tmp_path / "snap", *plan_of("o"))
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)  # noqa: PTH101, S103 - others start what is in it
        privileged = shutil.copy(launcher, place)
        os.chmod(privileged, 0o4755)  # noqa: PTH101, S103 - this is what is tested
        done = subprocess.run(
            [privileged, "--no-fallback", snap], check=False, capture_output=True, timeout=60, user=65534
        )
    assert (done.returncode, done.stdout) == (126, b"")
    assert b"this process has more rights than who started it" in done.stderr


@pytest.mark.parametrize(
    ("options", "variable", "status"),
    [
        (("--engine", "native"), "criu", DONE),
        (("--engine", "auto"), "criu", DONE),
        (("--engine", "criu"), "", 126),
        ((), "criu", 126),
        ((), "native", DONE),
        ((), "auto", DONE),
        ((), "simulate", DONE),
        ((), "other", 125),
    ],
)
def test_engine(start: Start, options: tuple[str, ...], variable: str, status: int) -> None:
    """A snapshot of another engine than the one asked for is refused; the option decides before the variable."""
    plan, memory = plan_of("o")
    env = {"LIBCRIU_PY_ENGINE": variable}
    done = start(plan, memory, options=("--no-fallback", *options), env=env)
    assert done.returncode == status
    assert (b"is of the engine native, and criu was asked for" in done.stderr) == (status == 126)
    if status != DONE:
        assert start(plan, memory, options=("-q", *options), env=env).stdout == b"conventionally\n"


def test_wrong_engine(launcher: str) -> None:
    """An engine that there is none of is a wrong command line."""
    done = subprocess.run([launcher, "--engine", "simulate", "x"], check=False, capture_output=True, timeout=60)
    assert done.returncode == 2
    assert b"argument --engine: invalid choice: simulate" in done.stderr


# ---- by an order ----------------------------------------------------------------------------


def ordered(snap: Path, flags: int = 0) -> list[tuple[int, int, bytes]]:
    """Have a copy made for this process, as `restore` does, and return what it is told until its end."""
    messages: list[tuple[int, int, bytes]] = []
    with Order(snap, b"3\0" * 20, mode=Privilege.AUTO, flags=flags) as order:
        process = subprocess.Popen(order.command, pass_fds=order.descriptors)
    try:
        status = order.await_restored()
        os.close(status.fds[0])
        messages = [(status.kind, status.value != process.pid, status.text)]
        while messages[-1][0] != ENDED:
            more = receive(order.status)
            assert more is not None
            messages.append((more.kind, more.value, more.text))
    finally:
        os.close(order.status)
        process.wait(60)
    return messages


def test_ordered_copy(tmp_path: Path) -> None:
    """It is a child of a supervisor, with nothing but its own descriptors, and its end is told."""
    plan, memory = plan_of("")
    snap = write_native(tmp_path / "snap", plan, memory)
    restored, ended = ordered(snap, DIE_WITH_CALLER)
    assert restored[1:] == (True, b"/bin/echo\0conventionally\0")
    assert ended == (ENDED, DONE << 8, b"")


@pytest.mark.parametrize("when", ["before", "between"])
def test_ordered_copy_that_fails(tmp_path: Path, when: str) -> None:
    """The caller is told why, as by a copy that cannot take over; nothing is started."""
    plan, memory = plan_of("")
    plan = plan._replace(descriptors=[Descriptor(3, REQUEST, 2)])
    if when == "before":
        missing = Descriptor(4, OPEN, data=b"/nowhere")
        plan, reason = plan._replace(descriptors=[*plan.descriptors, missing]), b"/nowhere"
    else:
        plan, reason = plan._replace(reads=[(FS, FS + PAGE, 1 << 40)]), b"memory.img cannot be read (errno 5)"
    _, told, ended = ordered(write_native(tmp_path / "snap", plan, memory))
    assert told[0] == TOLD
    assert told[2].startswith(b"E")
    assert reason in told[2]
    assert ended == (ENDED, 125 << 8, b"")


def test_order_of_an_odd_plan(tmp_path: Path) -> None:
    """It is refused before a process is made for it."""
    plan, memory = plan_of("")
    snap = write_native(tmp_path / "snap", plan._replace(threads=0), memory)
    with pytest.raises(CriuError, match="it has no threads"):
        ordered(snap)
