"""The launcher makes the descriptors of a plan in their places, and nothing else is open."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py.native.plan import ANY_SIZE, MEMORY, PAGE, Descriptor
from libcriu_py.snapshot.request import Request
from tests.plans import (
    DONE,
    DUPLICATE,
    EPOLL,
    EVENTFD,
    FS,
    LISTENER,
    MEMFD,
    OPEN,
    OTHER_END,
    PIPE,
    REQUEST,
    SIGNALFD,
    SOCKET_PAIR,
    TIMERFD,
    Plan,
    plan_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.plans import Start

FLAGS = os.O_ACCMODE | os.O_NONBLOCK | os.O_APPEND


def with_descriptors(
    commands: str, *rows: Descriptor, watches: Sequence[tuple[int, int, int, int]] = ()
) -> tuple[Plan, bytes]:
    """Return the plan of a process that has these descriptors."""
    plan, memory = plan_of(commands)
    return plan._replace(descriptors=rows, watches=watches), memory


def listed(output: bytes) -> dict[int, tuple[int, int]]:
    """Return the flags of descriptors, and whether an exec closes them."""
    return {fd: (flags & FLAGS, close) for fd, flags, close in struct.iter_unpack("=iii", output) if fd > 2}


def test_nothing_else_is_open(start: Start) -> None:
    """Of the loader's own descriptors, none is left."""
    assert listed(start(*with_descriptors("l")).stdout) == {}


def test_places_and_flags(start: Start, tmp_path: Path) -> None:
    """Each descriptor has its number, its flags, and is closed by an exec or not; whatever the order of the numbers."""
    path = tmp_path / "file"
    path.write_text("0123456789")
    name = os.fsencode(path)
    rows = (
        Descriptor(6, SOCKET_PAIR, os.O_RDWR, 5, 1, value=socket.SOCK_STREAM),
        Descriptor(5, OTHER_END, os.O_RDWR | os.O_NONBLOCK),
        Descriptor(3, PIPE, os.O_RDONLY | os.O_NONBLOCK, 4, value=4096),
        Descriptor(4, OTHER_END, os.O_WRONLY, close_on_exec=1),
        Descriptor(40, OPEN, os.O_RDWR | os.O_APPEND, close_on_exec=1, other_offset=10, form=stat.S_IFREG, data=name),
        Descriptor(7, DUPLICATE, other=40),
        Descriptor(8, OPEN, os.O_WRONLY, other_offset=ANY_SIZE, form=stat.S_IFCHR, data=b"/dev/null"),
        Descriptor(9, OPEN, os.O_RDONLY | os.O_DIRECTORY, other_offset=ANY_SIZE, form=stat.S_IFDIR, data=b"/"),
        Descriptor(10, EPOLL, os.O_RDWR, close_on_exec=1),
        Descriptor(11, EVENTFD, os.O_RDWR | os.O_NONBLOCK | 1, value=3),
        Descriptor(12, DUPLICATE, other=1),
    )
    done = start(*with_descriptors("l", *rows))
    assert (done.returncode, done.stderr) == (DONE, b"")
    assert listed(done.stdout) == {
        3: (os.O_RDONLY | os.O_NONBLOCK, 0),
        4: (os.O_WRONLY, 1),
        5: (os.O_RDWR | os.O_NONBLOCK, 0),
        6: (os.O_RDWR, 1),
        7: (os.O_RDWR | os.O_APPEND, 0),
        8: (os.O_WRONLY, 0),
        9: (os.O_RDONLY, 0),
        10: (os.O_RDWR, 1),
        11: (os.O_RDWR | os.O_NONBLOCK, 0),
        12: (os.O_WRONLY, 0),
        40: (os.O_RDWR | os.O_APPEND, 1),
    }


def test_content(start: Start, tmp_path: Path) -> None:
    """What a descriptor reads is what the process that was dumped would have read."""
    path = tmp_path / "file"
    path.write_text("0123456789")
    mask = 1 << (signal.SIGCHLD - 1)
    plan, memory = with_descriptors(
        "d3d4d5d7d8d9",
        Descriptor(3, OPEN, os.O_RDONLY, value=6, other_offset=10, form=stat.S_IFREG, data=os.fsencode(path)),
        Descriptor(4, EVENTFD, os.O_RDWR, value=7),
        Descriptor(5, PIPE, os.O_RDONLY, 6, value=65536, data=b"queued"),
        Descriptor(6, OTHER_END, os.O_WRONLY),
        Descriptor(7, SOCKET_PAIR, os.O_RDWR, 8, value=socket.SOCK_STREAM, data=b"one way"),
        Descriptor(8, OTHER_END, os.O_RDWR, data=b"the other"),
        Descriptor(9, MEMFD, os.O_RDWR, value=1, data=MEMORY.pack(5, 0, 0o600, 8) + b"name"),
        Descriptor(10, SIGNALFD, os.O_RDWR | os.O_NONBLOCK, value=mask),
    )
    done = start(plan, memory)
    assert (done.returncode, done.stderr) == (DONE, b"")
    lines = [b"6789", struct.pack("<Q", 7), b"queued", b"one way", b"the other", memory[1:5], b""]
    assert done.stdout == b"\n".join(lines)


def test_timer(start: Start) -> None:
    """It expires when it would have, and tells what it had not told yet."""
    rows = (
        Descriptor(3, TIMERFD, os.O_RDWR, value=1, data=struct.pack("<qqQ", 1, 0, 0)),
        Descriptor(4, TIMERFD, os.O_RDWR | os.O_NONBLOCK, value=1, data=struct.pack("<qqQ", 3600 * 10**9, 0, 5)),
        Descriptor(5, TIMERFD, os.O_RDWR | os.O_NONBLOCK, value=1, data=struct.pack("<qqQ", 3600 * 10**9, 0, 0)),
    )
    done = start(*with_descriptors("d3d4d5", *rows))
    assert done.stdout == struct.pack("<Qc", 1, b"\n") + struct.pack("<Qc", 5, b"\n") + b"\n"


def test_watches(start: Start) -> None:
    """An epoll instance watches what it watched, with the same data."""
    rows = (
        Descriptor(3, EVENTFD, os.O_RDWR, value=1),
        Descriptor(4, EPOLL, os.O_RDWR),
        Descriptor(5, PIPE, os.O_RDONLY, 6, value=65536),
        Descriptor(6, OTHER_END, os.O_WRONLY),
    )
    watches = ((4, 3, select.EPOLLIN, 0x1122334455667788), (4, 5, select.EPOLLIN, 2))
    done = start(*with_descriptors("e4", *rows, watches=watches))
    assert done.stdout == struct.pack("<iIQ", 1, select.EPOLLIN, 0x1122334455667788)


def address_of(port: int) -> bytes:
    """Return an address of this machine, as the kernel has it."""
    return struct.pack("=H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton("127.0.0.1") + bytes(8)


def test_listener(start: Start) -> None:
    """It is bound anew; where another has its address, there is no copy, as there would be no start."""
    value = socket.AF_INET << 32 | socket.SOCK_STREAM << 16
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        data = struct.pack("=II", 5, 1) + address_of(port)
        plan, memory = with_descriptors("l", Descriptor(3, LISTENER, os.O_RDWR, value=value, data=data))
        taken.listen()
        done = start(plan, memory)
        assert (done.returncode, done.stdout) == (125, b"")
        assert b"a listening socket (descriptor 3 of the program) cannot be made: Address already in use" in done.stderr
    assert listed(start(plan, memory).stdout) == {3: (os.O_RDWR, 0)}


def test_file_of_another_kind(start: Start, tmp_path: Path) -> None:
    """What is not what the program had open is refused, without waiting for a writer of a FIFO."""
    path = tmp_path / "file"
    row = Descriptor(3, OPEN, os.O_RDONLY, other_offset=3, form=stat.S_IFREG, data=os.fsencode(path))
    assert b"cannot be opened: No such file" in start(*with_descriptors("o", row)).stderr
    os.mkfifo(path)
    assert b"is not what it was" in start(*with_descriptors("o", row)).stderr
    path.unlink()
    path.write_text("longer")
    assert b"has not the size that it had" in start(*with_descriptors("o", row)).stderr
    path.write_text("abc")
    assert start(*with_descriptors("o", row)).stdout == b"ok\n"


def test_request(start: Start) -> None:
    """The copy gets the request, and what it needs to start its program itself; what it is by nature is not in it."""
    plan, memory = with_descriptors("r3r3", Descriptor(3, REQUEST, os.O_RDWR))
    done = start(plan, memory, "a", "b c", options=("-q",), env={"X": "y"})
    assert (done.returncode, done.stderr) == (DONE, b"")
    encoded, how = done.stdout[: -len(b"\nN\2\n")], done.stdout[-len(b"N\2\n") :]
    request = Request.decode(encoded)
    assert how == b"N\2\n"
    assert (request.argv, request.env, request.cwd) == ([b"a", b"b c"], {b"X": b"y"}, os.fsencode(os.getcwd()))
    assert (request.pgid, request.limits, request.inherited, request.closed) == (None, {}, [], [])


# ---- what the launcher was given -----------------------------------------------


def inherit(*numbers: int) -> None:
    """Have a file under each number to be passed on, and nothing else."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(entry) > 2:
                os.set_inheritable(int(entry), False)
    for number in numbers:
        fd = os.open("/dev/zero", os.O_RDONLY)
        os.dup2(fd, number, inheritable=True)
        if fd not in numbers:
            os.close(fd)


def test_inherited_descriptors(start: Start) -> None:
    """They stay what they are, but those whose numbers the program uses itself, which no argument may name."""
    plan, memory = with_descriptors("l", Descriptor(5, EVENTFD, os.O_RDWR, close_on_exec=1))
    found = start(plan, memory, close_fds=False, preexec_fn=lambda: inherit(4, 5, 42))
    assert listed(found.stdout) == {4: (0, 0), 5: (os.O_RDWR, 1), 42: (0, 0)}
    done = start(plan, memory, "/dev/fd/5", close_fds=False, preexec_fn=lambda: inherit(5))
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"an argument names the inherited descriptor 5, but the program has a file of its own there" in done.stderr


LIST = """
import fcntl
for fd in range(3, 100):
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        continue
    print(fd)
"""


@pytest.mark.parametrize("where", ["before", "behind", "after"])
def test_conventional_start_has_what_it_would_have_had(start: Start, where: str) -> None:
    """After a failure, whether libc is there still or not, the program has the launcher's descriptors and no others."""
    rows = [Descriptor(5, EVENTFD, os.O_RDWR), Descriptor(6, EVENTFD, os.O_RDWR)]
    plan, memory = with_descriptors("o", *rows)
    if where == "before":
        missing = Descriptor(7, OPEN, os.O_RDONLY, other_offset=1, form=stat.S_IFREG, data=b"/nowhere")
        plan, reason = plan._replace(descriptors=[*rows, missing]), "/nowhere"
    elif where == "behind":
        plan, reason = plan._replace(reads=[(FS, FS + PAGE, 1 << 40)]), "memory.img cannot be read (errno 5)"
    else:
        (plan, memory), reason = with_descriptors("f", *rows), "(errno 12)"
    done = start(
        *(plan, memory),
        options=(),
        close_fds=False,
        preexec_fn=lambda: inherit(4, 5),
        command=(sys.executable, "-I", "-S", "-c", LIST),
    )
    assert (done.returncode, done.stdout) == (0, b"4\n5\n")
    assert done.stderr.startswith(b"libcriu-py: starting conventionally: ")
    assert reason.encode() in done.stderr


def test_low_limit_of_open_files(start: Start) -> None:
    """The limit is the caller's in the copy, even if the program has higher numbers."""
    plan, memory = with_descriptors("ls", Descriptor(60, EVENTFD, os.O_RDWR))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    done = start(plan, memory, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard)))
    assert done.returncode == DONE
    assert struct.unpack_from("=iii", done.stdout, 36)[0] == 60
    done = start(plan, memory, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20)))
    assert done.returncode == 125
    assert b"the program needs room for 79 open files, and may have 20 here" in done.stderr


def test_closed_streams(start: Start) -> None:
    """A standard stream that is closed keeps its number free of what the copy opens."""
    plan, memory = with_descriptors("l", Descriptor(3, REQUEST, os.O_RDWR))
    done = start(plan, memory, close_fds=False, preexec_fn=lambda: os.close(0))
    assert [fd for fd, *_ in struct.iter_unpack("=iii", done.stdout)] == [0, 1, 2, 3]
