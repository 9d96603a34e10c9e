"""What the native engine refuses, by name, with the process as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

LIBC = """
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
"""
REFUSED = {
    "has a child process": "if not os.fork():\n    ctypes.CDLL(None).prctl(1, 9)\n    signal.pause()",
    "has a zombie, too: has a child process": (
        "pid = os.fork() or os._exit(0)\nos.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    ),
    "whose path is gone or relative": (
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[0] + '.s'); s.listen(); os.unlink(sys.argv[0] + '.s')"
    ),
    "name: whose path is gone or relative": (
        "os.chdir(os.path.dirname(sys.argv[0])); s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()"
    ),
    "UNIX: has a connection that it has not accepted yet": (
        "s = socket.socket(socket.AF_UNIX); s.bind(''); s.listen(); c = socket.socket(socket.AF_UNIX)\n"
        "c.connect(s.getsockname()); c.close()"
    ),
    "has a listening socket with special options": (
        "s = socket.create_server(('127.0.0.1', 0)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)"
    ),
    "has a connection that it has not accepted yet": (
        "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.close()"
    ),
    "has a socket of family 2 (descriptor": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "holds a socket that is not connected inside the process": "s = socket.socket(socket.AF_UNIX)",
    "has data in a socket": "a, b = socket.socketpair(type=socket.SOCK_DGRAM); a.send(b'x')",
    "descriptors: has data in a socket": "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0])",
    "has a socket with options": (
        "import struct; a, b = socket.socketpair()\n"
        "a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack('ll', 1, 0))"
    ),
    "shut down: has a socket with options": "a, b = socket.socketpair(); a.shutdown(socket.SHUT_WR)",
    "has a pipe of packets": "r, w = os.pipe2(os.O_DIRECT)",
    "has much data in a pipe": (
        "import fcntl; r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20); os.write(w, bytes(1 << 20))"
    ),
    "has a pipe whose other end is not open": "r, w = os.pipe(); os.close(w)",
    "has an end of a pipe that was opened again": (
        "r, w = os.pipe(); again = os.open(f'/proc/self/fd/{r}', os.O_RDONLY | os.O_NONBLOCK)"
    ),
    "has a memfd with huge pages, a lock": ("import fcntl; f = os.memfd_create('some'); fcntl.flock(f, fcntl.LOCK_EX)"),
    "of which it has no descriptor with the same rights": (
        LIBC + "f = os.memfd_create('some'); os.truncate(f, 4096); r = os.open(f'/proc/self/fd/{f}', os.O_RDONLY)\n"
        "libc.mmap(None, 4096, 3, 1, f, 0); os.close(f)"
    ),
    "lease: has a descriptor with O_ASYNC": (
        "import fcntl; f = open(sys.argv[0]); fcntl.fcntl(f, fcntl.F_SETLEASE, fcntl.F_RDLCK)"
    ),
    "has a file open that was deleted or replaced": ("f = open(sys.argv[0] + '.gone', 'w'); os.unlink(f.name)"),
    "has a file of a process open": "f = open('/proc/self/maps')",
    "has a device open": "m, s = os.openpty()",
    "has a kernel object that is not known (anon_inode:[pidfd]": "f = os.pidfd_open(os.getpid())",
    "inotify: has a kernel object that is not known": "import ctypes; f = ctypes.CDLL(None).inotify_init()",
    "watches what is not open any more, or a standard stream": (
        "import select; e = select.epoll(); r, w = os.pipe(); e.register(r); d = os.dup(r); os.close(r)"
    ),
    "has a watch that EPOLLONESHOT has ended": (
        "import select; e = select.epoll(); r, w = os.pipe()\n"
        "e.register(w, select.EPOLLOUT | select.EPOLLONESHOT); e.poll(1)"
    ),
    "has a pending signal (10)": ("signal.pthread_sigmask(signal.SIG_BLOCK, [10]); os.kill(os.getpid(), 10)"),
    "which was deleted or replaced": (
        "f = open(sys.argv[0] + '.gone', 'w+b'); f.write(b'x' * 4096); f.flush(); os.unlink(f.name)\n"
        "m = mmap.mmap(f.fileno(), 4096, flags=mmap.MAP_PRIVATE); f.close()"
    ),
    "across what is written at once: holds a recursive or error-checking mutex": (
        "m = mmap.mmap(-1, 1 << 20); m[:] = b'\\1' * len(m); m[(1 << 18) - 16 : (1 << 18) + 24] = bytes(40)\n"
        "mutex = (ctypes.c_uint64 * 5).from_buffer(m, (1 << 18) - 16); mutex[2] = 1  # PTHREAD_MUTEX_RECURSIVE\n"
        "held = threading.Event()\n"
        "lock = lambda: (ctypes.CDLL(None).pthread_mutex_lock(mutex), held.set(), threading.Event().wait())\n"
        "threading.Thread(target=lock, daemon=True).start(); held.wait()"
    ),
    "has shared memory that is large or mapped twice": (
        LIBC + "fd = os.memfd_create('some'); os.truncate(fd, 4096)\n"
        "for _ in range(2): assert libc.mmap(None, 4096, 3, 1, fd, 0) + 1 > 0\n"
        "os.close(fd)"
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_refuses_by_name(reason: str, dump: Run) -> None:
    """The reason names it, and there is no snapshot."""
    outcome = dump(REFUSED[reason])
    assert outcome.status == 1
    assert ": the native engine cannot dump this process: it " in outcome.errors.splitlines()[-1]
    assert reason.rpartition(": ")[2] in outcome.errors
    assert not outcome.snapshot.exists()


def test_refused_process_goes_on(dump: Run) -> None:
    """All threads of a process that is not eligible go on, and another dump of it succeeds."""
    before = """
        go_on, done = threading.Event(), threading.Event()
        threading.Thread(target=lambda: (go_on.wait(), done.set()), daemon=True).start()
        r, w = os.pipe2(os.O_DIRECT)
        os.write(w, b"x")
        try:
            with checkpoint(sys.argv[0] + ".refused", engine="native"):
                pass
        except NotImplementedError as error:
            assert "has a pipe of packets" in str(error)
        assert os.read(r, 1) == b"x"
        os.close(r), os.close(w)
        """
    after = "go_on.set(); print(done.wait(10), snap.outcome.value)"
    assert dump(before, after).copy() == "True restored\n"
