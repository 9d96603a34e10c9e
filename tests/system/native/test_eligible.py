"""What native copies have of the dumped process: descriptors of each kind, and memory of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.system.native.conftest import Run

LIBC = """
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
def flags_of(address):
    found = {}
    for line in open("/proc/self/smaps"):
        if line[0] in "0123456789abcdef":
            start, end = (int(text, 16) for text in line.split()[0].split("-"))
        elif line.startswith("VmFlags") and start <= address < end:
            return line.split()[1:]
"""
PROGRAMS = {
    "file at its position": (
        "f = open(sys.argv[0]); f.read(10); d = os.dup(f.fileno()); os.lseek(d, 7, 0)",
        "print(os.lseek(f.fileno(), 0, 1), os.read(d, 1) == open(sys.argv[0], 'rb').read()[7:8], os.lseek(d, 0, 1))",
        "7 True 8\n",
    ),
    "file to append to": (
        "f = open(sys.argv[0] + '.log', 'a'); f.write('before\\n'); f.flush()",
        "f.write('after\\n'); f.flush(); print(open(f.name).read().split())",
        "['before', 'after']\n",
    ),
    "directory and devices": (
        "d = os.open('/usr', os.O_RDONLY); n = os.open('/dev/null', os.O_WRONLY); u = os.open('/dev/urandom', 0)",
        "print('bin' in os.listdir(d), os.write(n, b'xy'), len(os.read(u, 3)), os.get_inheritable(n))",
        "True 2 3 False\n",
    ),
    "duplicate of a standard stream": (
        "d = os.dup(1); os.set_inheritable(d, True)",
        "os.write(d, b'by the duplicate\\n'); print(os.get_inheritable(d))",
        "by the duplicate\nTrue\n",
    ),
    "socket pair": (
        "a, b = socket.socketpair(); b.setblocking(False); c, d = socket.socketpair(type=socket.SOCK_DGRAM)",
        "a.send(b'x'); d.send(b'one'); d.send(b'two'); print(b.recv(9), c.recv(9), c.recv(9), b.gettimeout())",
        "b'x' b'one' b'two' 0.0\n",
    ),
    "data in pipes and sockets": (
        (
            "r, w = os.pipe(); [os.write(w, bytes([n])) for n in range(65, 91)]\n"
            "p, q = os.pipe(); os.write(q, b'z' * 65536)\n"
            "a, b = socket.socketpair(); a.send(b'to b'); a.send(b' again'); b.send(b'to a')"
        ),
        "print(os.read(r, 99), len(os.read(p, 99999)), a.recv(9), b.recv(99)); os.write(w, b'x'); print(os.read(r, 1))",
        "b'ABCDEFGHIJKLMNOPQRSTUVWXYZ' 65536 b'to a' b'to b again'\nb'x'\n",
    ),
    "listening socket": (
        "s = socket.create_server(('127.0.0.1', 0), backlog=7); s.setblocking(False); place = s.getsockname()",
        (
            "c = socket.create_connection(place); c.send(b'x'); s.setblocking(True); a, _ = s.accept()\n"
            "print(s.getsockname() == place, a.recv(9), s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR))"
        ),
        "True b'x' 1\n",
    ),
    "listening socket of both families": (
        "s = socket.create_server(('', 0), family=socket.AF_INET6, dualstack_ipv6=True); place = s.getsockname()",
        (
            "c = socket.create_connection(('127.0.0.1', place[1])); a, _ = s.accept()\n"
            "print(s.getsockname() == place, s.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))"
        ),
        "True 0\n",
    ),
    "pipe": (
        "import fcntl; r, w = os.pipe2(os.O_NONBLOCK); fcntl.fcntl(w, 1031, 1 << 18)",
        "os.write(w, b'x'); print(os.read(r, 9), fcntl.fcntl(r, 1032), fcntl.fcntl(r, 3) & os.O_NONBLOCK > 0)",
        "b'x' 262144 True\n",
    ),
    "epoll": (
        "import select; e = select.epoll(); r, w = os.pipe(); e.register(r, select.EPOLLIN | select.EPOLLET)",
        "print(e.poll(0)); os.write(w, b'x'); print(e.poll(1) == [(r, select.EPOLLIN)], e.poll(0))",
        "[]\nTrue []\n",
    ),
    "eventfd": (
        "f = ctypes.CDLL(None).eventfd(5, 0); s = ctypes.CDLL(None).eventfd(2, 1)",
        "print(*(int.from_bytes(os.read(fd, 8), 'little') for fd in (f, s, s)))",
        "5 1 1\n",
    ),
    "timerfd": (
        (
            "f = ctypes.CDLL(None).timerfd_create(1, 0)\n"
            "ctypes.CDLL(None).timerfd_settime(f, 0, (ctypes.c_long * 4)(0, 0, 1, 0), None)"
        ),
        "print(int.from_bytes(os.read(f, 8), 'little'))",
        "1\n",
    ),
    "memfd": (
        (
            "import fcntl; f = os.memfd_create('some', os.MFD_ALLOW_SEALING); os.write(f, b'content')\n"
            "os.truncate(f, 3 << 30); os.pwrite(f, b'far', 1 << 30); os.lseek(f, 3, 0); os.fchmod(f, 0o640)\n"
            "fcntl.fcntl(f, 1033, 2 | 4); assert os.stat(f).st_blocks <= 16"
        ),
        (
            "print(os.read(f, 4), os.pread(f, 3, 1 << 30), os.stat(f).st_size == 3 << 30, os.stat(f).st_blocks)\n"
            "print(oct(os.stat(f).st_mode), fcntl.fcntl(f, 1034), os.readlink(f'/proc/self/fd/{f}'))"
        ),
        "b'tent' b'far' True 16\n0o100640 6 /memfd:some (deleted)\n",
    ),
    "memfd without a name that is sealed": (
        "import fcntl; f = os.memfd_create('', os.MFD_ALLOW_SEALING); os.write(f, b'x'); fcntl.fcntl(f, 1033, 15)",
        "print(os.pread(f, 9, 0), fcntl.fcntl(f, 1034), mmap.mmap(f, 0, prot=mmap.PROT_READ)[:])",
        "b'x' 15 b'x'\n",
    ),
    "memfd that is opened twice": (
        (
            "f = os.memfd_create('some'); os.write(f, b'0123456789'); d = os.dup(f)\n"
            "r = os.open(f'/proc/self/fd/{f}', os.O_RDONLY); os.read(r, 2)"
        ),
        "os.pwrite(f, b'X', 2); print(os.read(r, 2), os.lseek(f, 0, 1), os.lseek(d, 0, 1), os.path.sameopenfile(f, r))",
        "b'X3' 10 10 True\n",
    ),
    "memfd that is mapped shared": (
        (
            "f = os.memfd_create('some'); os.write(f, b'a' * 8192); m = mmap.mmap(f, 8192); n = mmap.mmap(f, 4096)\n"
            "r = os.open(f'/proc/self/fd/{f}', os.O_RDONLY); o = mmap.mmap(r, 8192, prot=mmap.PROT_READ); m[0] = 98"
        ),
        "m[1] = 99; os.pwrite(f, b'd', 2); print(m[:4], n[:4], o[:4], os.pread(f, 4, 0))",
        "b'bcda' b'bcda' b'bcda' b'bcda'\n",
    ),
    "memfd that is mapped private": (
        (
            "f = os.memfd_create('some'); os.write(f, b'a' * (8 << 20))\n"
            "m = mmap.mmap(f, 8 << 20, flags=mmap.MAP_PRIVATE); m[5 << 20] = 98"
        ),
        "print(m[:1], m[5 << 20:(5 << 20) + 2], os.pread(f, 1, 5 << 20)); os.pwrite(f, b'c', 0); print(m[:1])",
        "b'a' b'ba' b'a'\nb'c'\n",
    ),
    "signalfd": (
        (
            "signal.pthread_sigmask(signal.SIG_BLOCK, [12])\n"
            "f = ctypes.CDLL(None).signalfd(-1, (ctypes.c_uint64 * 1)(1 << 11), 0)"
        ),
        "os.kill(os.getpid(), 12); print(os.read(f, 128)[0])",
        "12\n",
    ),
    "shared anonymous memory": (
        "m = mmap.mmap(-1, 8192); m[:5] = b'hello'",
        "pid = os.fork()\nif not pid:\n    m[0:1] = b'j'; os._exit(0)\nos.waitpid(pid, 0); print(m[:5])",
        "b'jello'\n",
    ),
    "locks of multiprocessing": (
        "import multiprocessing; s = multiprocessing.Semaphore(3); s.acquire(); l = multiprocessing.RLock()",
        "print(s.get_value(), l.acquire())",
        "2 True\n",
    ),
    "file that is mapped shared": (
        "f = open(sys.argv[0] + '.data', 'w+b'); f.write(bytes(8192)); f.flush(); m = mmap.mmap(f.fileno(), 8192)",
        "m[0:1] = b'x'; print(open(f.name, 'rb').read(1), mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)[:1])",
        "b'x' b'x'\n",
    ),
    "file that is mapped private and written": (
        (
            "f = open(sys.argv[0] + '.data', 'w+b'); f.write(b'a' * (8 << 20)); f.flush()\n"
            "m = mmap.mmap(f.fileno(), 8 << 20, flags=mmap.MAP_PRIVATE); m[5 << 20] = 98"
        ),
        "print(m[:1], m[5 << 20:(5 << 20) + 2], open(f.name, 'rb').read(1))",
        "b'a' b'ba' b'a'\n",
    ),
    "advice": (
        LIBC + "a = libc.mmap(None, 65536, 3, 0x22, -1, 0); ctypes.memset(a, 7, 65536)\n"
        "for advice in (10, 12, 15, 16): libc.madvise(a, 32768, advice)",
        "print(sorted({'dc', 'dd', 'mg', 'nh'} & {*flags_of(a)}), 'dc' in flags_of(a + 32768), ctypes.string_at(a, 2))",
        "['dc', 'dd', 'mg', 'nh'] False b'\\x07\\x07'\n",
    ),
    "memory that a fork wipes": (
        LIBC + "a = libc.mmap(None, 65536, 3, 0x22, -1, 0); ctypes.memset(a, 7, 65536); libc.madvise(a, 65536, 18)",
        "print('wf' in flags_of(a), ctypes.string_at(a, 2))",
        "True b'\\x00\\x00'\n",
    ),
    "locked memory": (
        LIBC + "a = libc.mmap(None, 8192, 3, 0x22, -1, 0); ctypes.memset(a, 7, 8192)\n"
        "assert not libc.mlock(ctypes.c_void_p(a), ctypes.c_size_t(8192))",
        "print('lo' in flags_of(a), ctypes.string_at(a, 2))",
        "True b'\\x07\\x07'\n",
    ),
    "memory without permissions": (
        LIBC + "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "a = libc.mmap(None, 1 << 20, 3, 0x22, -1, 0); ctypes.memset(a, 7, 1 << 20); libc.mprotect(a, 1 << 20, 0)",
        "print(flags_of(a)[0]); libc.mprotect(a, 1 << 20, 1); print(*(ctypes.string_at(a + n, 1) for n in (0, 9999)))",
        "mr\nb'\\x07' b'\\x07'\n",
    ),
    "code that was written": (
        LIBC + "libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]\n"
        "a = libc.mmap(None, 4096, 3, 0x22, -1, 0); ctypes.memmove(a, bytes.fromhex('b82a000000c3'), 6)\n"
        "assert not libc.mprotect(a, 4096, 5)",
        "print(ctypes.CFUNCTYPE(ctypes.c_int)(a)())",
        "42\n",
    ),
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_copy_has(what: str, dump: Run) -> None:
    """A copy has it as the process had it."""
    before, after, expected = PROGRAMS[what]
    assert dump(before, after).copy() == expected


@pytest.mark.parametrize("memory", ["auto", "map", "copy"])
def test_guard_regions(memory: str, dump: Run) -> None:
    """Nobody may touch them in a copy either, whatever the memory's source is."""
    before = LIBC + (
        "a = libc.mmap(None, 64 * 4096, 3, 0x22, -1, 0); ctypes.memset(a, 7, 64 * 4096)\n"
        "if libc.madvise(a + 4096, 8192, 102):\n    sys.exit(77)\n"
        f"import libcriu_py.settings; memory = {memory!r}"
    )
    after = """
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        def read(page):
            try:
                return os.pread(memory, 1, a + 4096 * page)
            except OSError:
                return None
        print(*map(read, range(4)))
        """
    outcome = dump(before, after)
    if outcome.status == 77:
        pytest.skip("this kernel has no guard regions")
    assert outcome.copy() == "b'\\x07' None None b'\\x07'\n"


def test_original_goes_on(dump: Run) -> None:
    """With "continue", what the original does after the dump is not in copies."""
    before = "numbers = [1] * 100_000; text = 'before'"
    after = "print(text, len(numbers), snap.outcome.value); text = 'after'; numbers.clear()"
    outcome = dump(before, after, then="continue")
    assert outcome.output == "before 100000 continued\n"
    assert outcome.copy() == "before 100000 restored\n"


def test_original_goes_on_with_its_memfd(dump: Run) -> None:
    """What the original writes into a memfd after the dump, or into a mapping of it, is not in copies."""
    before = "f = os.memfd_create('some'); os.write(f, b'a' * 8192); m = mmap.mmap(f, 8192); m[0] = 98"
    outcome = dump(before, "m[1] = 99; os.write(f, b'd'); print(m[:3], os.stat(f).st_size)", then="continue")
    assert outcome.output == "b'bca' 8193\n"
    assert outcome.copy() == "b'bca' 8193\n"


@pytest.mark.parametrize("place", ["elsewhere", "here"])
def test_copy_of_a_copy_needs_no_earlier_snapshot(place: str, dump: Run) -> None:
    """A copy can dump itself, and what it maps of its snapshot is saved again: that may be replaced, or go."""
    before = "data, places = bytearray(b'd' * (8 << 20)), [sys.argv[0] + '.elsewhere', sys.argv[0][:-10] + 'snap']"
    after = f"""
        data[:3] = b"new"
        if len(sys.argv) > 1:
            with checkpoint(places[{place == "here"}], engine="native", replace=True):
                pass
        print(data[:4], data.count(b"d"))
        """
    first = dump(before, after)
    done = first.start("again")
    assert done.returncode == 0, done.stderr
    second = first
    if place == "elsewhere":
        second = first._replace(snapshot=first.snapshot.with_name("program.py.elsewhere"))
        first.snapshot.rename(first.snapshot.with_name("gone"))
    assert second.copy() == "bytearray(b'newd') 8388605\n"
