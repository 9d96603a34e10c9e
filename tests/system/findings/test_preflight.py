"""What keeps a process from being dumped is named before criu is asked, and criu agrees with the verdicts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import NATIVE, by_criu
from tests.system.selfdump import start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]

OPENERS = {
    "socketpair": "keep = socket.socketpair()",
    "listener": "keep = socket.create_server(('127.0.0.1', 0))",
    "unconnected": "keep = socket.socket(), socket.socket(socket.AF_UNIX)",
    "udp": "keep = socket.socket(type=socket.SOCK_DGRAM); keep.bind(('127.0.0.1', 0))",
    "unix listener": "keep = socket.socket(socket.AF_UNIX); keep.bind(sys.argv[1] + '/sock'); keep.listen()",
    "pipe": "keep = os.pipe()",
    "epoll": "keep = select.epoll(); ends = os.pipe(); keep.register(ends[0])",
    "eventfd": "keep = os.eventfd(1)",
    "pidfd": "keep = os.pidfd_open(os.getpid())",
    "timerfd": "import ctypes; keep = ctypes.CDLL(None).timerfd_create(1, 0); assert keep > 2",
    "netlink": "keep = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "O_PATH": "keep = os.open(sys.argv[1], os.O_PATH)",
    "proc": "keep = open('/proc/self/status')",
    "memfd": "keep = os.memfd_create('x'); os.ftruncate(keep, 5 << 20)",
    "small deleted file": "keep = tempfile.TemporaryFile(dir=sys.argv[1]); keep.write(b'x'); keep.flush()",
    "directory": "keep = os.open('/', os.O_RDONLY)",
    "fifo": "os.mkfifo(sys.argv[1] + '/fifo'); keep = os.open(sys.argv[1] + '/fifo', os.O_RDWR)",
    "file": "keep = open(sys.argv[1] + '/file', 'w')",
    "devices": "keep = open('/dev/null'), open('/dev/urandom', 'rb'), open('/dev/zero', 'rb')",
    "child": "import subprocess; nothing = subprocess.DEVNULL;"
    "keep = subprocess.Popen(['sleep', '1000'], stdin=nothing, stdout=nothing, stderr=nothing)",
    "zombie": "import subprocess; keep = subprocess.Popen(['true']);"
    "os.waitid(os.P_PID, keep.pid, os.WEXITED | os.WNOWAIT)",
    "shared memory": "import mmap; keep = mmap.mmap(-1, 1 << 21)",
}
"""What can be dumped, and how a program comes to have it."""

PROBLEMS = {
    "TCP connection": "server = socket.create_server(('127.0.0.1', 0));"
    "keep = socket.create_connection(server.getsockname()), server.accept()",
    "UNIX socket": "keep = socket.socket(socket.AF_UNIX); keep.connect('\\0' + sys.argv[2]); keep.recv(1)",
    "deleted file": "keep = tempfile.TemporaryFile(dir=sys.argv[1]); os.write(keep.fileno(), b'x' * (5 << 20))",
    "file lock": "import fcntl; keep = open(sys.argv[1] + '/lock', 'w'); fcntl.flock(keep, fcntl.LOCK_EX)",
    "io_uring": "import ctypes; keep = ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(120));"
    "assert keep > 2",
    "kernel object": "import ctypes; keep = ctypes.CDLL(None).syscall(444, ctypes.byref(ctypes.c_uint64(1)), 8, 0);"
    "assert keep > 2",
}
"""What cannot, by the kind that the finding names. 444 is landlock_create_ruleset."""

INOTIFY = (
    "import ctypes; keep = ctypes.CDLL(None).inotify_init();"
    "assert ctypes.CDLL(None).inotify_add_watch(keep, sys.argv[1].encode(), 2) > 0"
)
BEGINNING = """
import os, select, socket, sys, tempfile
from libcriu_py import checkpoint
"""


@pytest.fixture
def other_side() -> Iterator[str]:
    """Yield the abstract name of a UNIX socket on which this process listens, with connections to it."""
    import secrets
    import socketserver
    import threading

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            """Say that it is accepted, and keep the connection until the other side is gone."""
            self.wfile.write(b"x")
            self.rfile.read()

    name = secrets.token_hex(8)
    with socketserver.ThreadingUnixStreamServer(f"\0{name}", Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield name
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("mode", ["rootless"], indirect=True)
@pytest.mark.parametrize("what", OPENERS)
def test_what_is_fine_is_dumped(what: str, mode: Mode, directory_of: Directories) -> None:
    """Preflight lets pass what criu can dump, and a copy comes back with it."""
    directory = directory_of(mode.account)
    code = f"{BEGINNING}\n{OPENERS[what]}\nwith checkpoint():\n    pass\nprint('here')\n"
    if what == "child":
        code += "keep.kill(); keep.wait()\n"
    done = take(mode, directory, code, str(directory)).run()
    assert done.stdout == "here\n", done.stderr


@by_criu
def test_all_that_is_fine_at_once(mode: Mode, directory_of: Directories) -> None:
    """In each mode a program may have all of it."""
    directory = directory_of(mode.account)
    opening = "\n".join(f"{opener}\nkept.append(keep)" for opener in OPENERS.values())
    code = f"{BEGINNING}\nkept = []\n{opening}\nwith checkpoint():\n    pass\nprint('here')\n"
    code += "for keep in kept:\n    if isinstance(keep, subprocess.Popen):\n        keep.kill(); keep.wait()\n"
    done = take(mode, directory, code, str(directory)).run()
    assert done.stdout == "here\n", done.stderr


@pytest.mark.parametrize("what", PROBLEMS)
@by_criu
def test_criu_agrees_with_problems(what: str, other_side: str, mode: Mode, directory_of: Directories) -> None:
    """Preflight names what criu, asked without it, refuses."""
    directory = directory_of(mode.account)
    code = f"{BEGINNING}\n{PROBLEMS[what]}\nwith checkpoint():\n    pass\n"
    script = write_program(mode, directory, code)
    arguments = (str(directory), other_side)
    named = start(mode, script, directory / "snap", *arguments)
    assert "PreflightError: this process cannot be dumped as it is:\n  1. " in named.stderr
    assert f". {what} " in named.stderr
    assert not (directory / "snap").exists()
    refused = start(mode, script, directory / "snap", *arguments, env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert "OperationRefused" in refused.stderr, refused.stderr


FILTER = """
import ctypes, struct
from libcriu_py import checkpoint
libc = ctypes.CDLL(None)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]
allow_all = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
with checkpoint():
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(allow_all)))) == 0  # PR_SET_SECCOMP
"""


@by_criu
def test_seccomp_filter(mode: Mode, directory_of: Directories) -> None:
    """A filter that the program has set up since it began is named, and criu agrees."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, FILTER)
    named = start(mode, script, directory / "snap")
    assert "PreflightError: this process cannot be dumped as it is:\n  1. seccomp 1 filter: " in named.stderr
    assert "set it up in the copies" in named.stderr
    refused = start(mode, script, directory / "snap", env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert "OperationRefused" in refused.stderr, refused.stderr


@by_criu
def test_soft_limits_of_the_program(mode: Mode, directory_of: Directories) -> None:
    """What a program allows itself is not what criu has to do with, and a copy has the limits of its restoring side."""
    code = """
    import resource
    from libcriu_py import checkpoint, preflight
    limits = {resource.RLIMIT_NOFILE: 12, resource.RLIMIT_FSIZE: 4096, resource.RLIMIT_CPU: 60}
    with checkpoint():
        for limit, soft in limits.items():
            resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))
        found = {finding.what: finding.verdict.value for finding in preflight().findings if finding.kind == "limit"}
    print([found[name] for name in ("RLIMIT_NOFILE 12", "RLIMIT_FSIZE 4096", "RLIMIT_CPU 60")])
    print([resource.getrlimit(limit)[0] == soft for limit, soft in limits.items()])
    """
    done = take(mode, directory_of(mode.account), code).run()
    assert done.stdout == "['handled', 'handled', 'handled']\n[False, False, False]\n", done.stderr


@pytest.mark.parametrize(("limit", "value"), [("RLIMIT_NOFILE", 12), ("RLIMIT_FSIZE", 4096)])
@by_criu
def test_hard_limits_of_the_program(limit: str, value: int, mode: Mode, directory_of: Directories) -> None:
    """Nobody exceeds its hard limits, criu neither; but one that the program is served has descriptors of its own."""
    directory = directory_of(mode.account)
    code = f"""
    import resource
    from libcriu_py import checkpoint
    with checkpoint():
        resource.setrlimit(resource.{limit}, ({value}, {value}))
    print("here")
    """
    if mode.value == "rootless" and limit == "RLIMIT_NOFILE":
        assert take(mode, directory, code).run().stdout == "here\n"
        return
    script = write_program(mode, directory, code)
    named = start(mode, script, directory / "snap")
    assert f". limit {limit} {value}: a dump needs about " in named.stderr
    refused = start(mode, script, directory / "snap", env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert refused.returncode != 0
    assert not (directory / "snap").exists()


@by_criu
def test_inotify(mode: Mode, directory_of: Directories) -> None:
    """Watches are dumped with the rights of root only; elsewhere they are a problem, and criu agrees."""
    directory = directory_of(mode.account)
    code = f"{BEGINNING}\n{INOTIFY}\nwith checkpoint():\n    pass\nprint('here')\n"
    if mode.name == "root":
        assert take(mode, directory, code, str(directory)).run().stdout == "here\n"
        return
    script = write_program(mode, directory, code)
    named = start(mode, script, directory / "snap", str(directory))
    assert ". inotify anon_inode:inotify (fd " in named.stderr
    refused = start(mode, script, directory / "snap", str(directory), env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert "OperationRefused" in refused.stderr, refused.stderr


@by_criu
def test_all_problems_at_once(mode: Mode, directory_of: Directories) -> None:
    """One exception has every problem, with its descriptor, and with where it was opened when that is traced."""
    code = f"""{BEGINNING}
from libcriu_py import PreflightError
import fcntl
locked = open(sys.argv[1] + "/lock", "w")
fcntl.flock(locked, fcntl.LOCK_EX)
try:
    with checkpoint():
        big = open(sys.argv[1] + "/big", "wb")
        big.write(b'x' * (5 << 20))
        big.flush()
        os.unlink(big.name)
        server = socket.create_server(("127.0.0.1", 0))
        connected = socket.create_connection(server.getsockname())
except PreflightError as error:
    print(sorted((problem.kind, problem.fd is not None, len(problem.stack) > 0) for problem in error.problems))
"""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, code)
    done = start(mode, script, directory / "snap", str(directory), env={"LIBCRIU_PY_TRACE_FDS": "1"})
    assert done.stdout == (
        "[('TCP connection', True, True), ('deleted file', True, True), ('file lock', False, False)]\n"
    )


INHERITED = """
import fcntl, subprocess, sys
from libcriu_py import checkpoint
if "inside" not in sys.argv:
    held = open(sys.argv[1] + "/lock", "w")
    fcntl.flock(held, fcntl.LOCK_EX)
    command = [sys.executable, *sys.argv, "inside"]
    sys.exit(subprocess.run(command, pass_fds=[held.fileno()]).returncode)
with checkpoint():
    pass
"""


@by_criu
def test_inherited_lock(mode: Mode, directory_of: Directories) -> None:
    """A lock that came with a descriptor, as under flock(1), is named with who took it, and criu agrees."""
    directory = directory_of(mode.account)
    script = write_program(mode, directory, INHERITED)
    named = start(mode, script, directory / "snap", str(directory))
    assert f"1. file lock FLOCK WRITE on {directory}/lock: process " in named.stderr
    assert "has inherited the descriptor; start the program without it (flock --close)" in named.stderr
    refused = start(mode, script, directory / "snap", str(directory), env={"LIBCRIU_PY_PREFLIGHT": "off"})
    assert "OperationRefused" in refused.stderr, refused.stderr


def test_command(mode: Mode, directory_of: Directories) -> None:
    """`libcriu-py preflight` names problems, and by its status if there are any; -v lists all; nothing is saved."""
    directory = directory_of(mode.account)
    script = directory / "program.py"
    preflight = [mode.account.python, "-m", "libcriu_py", "preflight"]
    command = [*preflight, "--", script]
    script.write_text(
        "import json\nprint('by the program')\nfrom libcriu_py import checkpoint\nwith checkpoint(): pass\n"
    )
    fine = mode.run(command)
    assert fine.returncode == 0, fine.stderr
    assert f"engine: {mode.engine}\n" in fine.stdout
    assert "\n0 problems; " in fine.stdout
    assert "standard stream" not in fine.stdout
    listed = mode.run([*preflight, "-v", script])
    assert "standard stream" in listed.stdout
    assert "problems; " not in listed.stdout
    asked = mode.run([*preflight, "--json", script])
    found = json.loads(asked.stdout)
    assert (found["engine"], found["problems"], "by the program" in asked.stderr) == (mode.engine, [], True)
    assert "standard stream" in [finding["kind"] for finding in found["findings"]]
    script.write_text(f"{BEGINNING}\n{PROBLEMS['TCP connection']}\nwith checkpoint():\n    pass\n")
    bad = mode.run(command)
    assert bad.returncode == 1
    assert "needs hook  fd " in bad.stdout
    assert "\n2 problems; " in bad.stdout
    problems = json.loads(mode.run([*preflight, "--json", script]).stdout)["problems"]
    assert [(problem["kind"], problem["verdict"]) for problem in problems] == [("TCP connection", "needs hook")] * 2
    assert "engine: criu\n" in bad.stdout
    assert ("not native, since this process has a socket" in bad.stdout) == (mode.name == NATIVE)
    assert [path.name for path in directory.iterdir()] == ["program.py"]


def test_options_that_help(own_account: Account, directory_of: Directories) -> None:
    """What an option of the dump takes care of is no problem."""
    from tests.system.conftest import Mode

    code = f"{BEGINNING}\n{PROBLEMS['deleted file']}\nimport fcntl\nfcntl.flock(keep, fcntl.LOCK_EX)\n"
    code += 'with checkpoint(options={"file_locks": True, "ghost_limit": 8 << 20}):\n    pass\nprint("here")\n'
    directory = directory_of(own_account)
    assert take(Mode("root", "root", own_account), directory, code, str(directory)).run().stdout == "here\n"
