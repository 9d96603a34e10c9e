"""
What programs hold open when they are dumped, each as a small program that tells whether it still works afterwards.

The table in docs/unprivileged.md says which work in which mode. test_modes_matrix.py holds it against the run, and
with --write-matrix writes it from the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.accounts import ROOT
from tests.system.privileges import run_with

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.accounts import Account

MODES = ("root", "capability", "rootless")
DOCUMENT = ROOT / "docs" / "unprivileged.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"
NOTES = {"pseudoterminal": 1, "inotify": 2}
"""The notes below the table that say why programs do not work."""

HEAD = """\
import ctypes, fcntl, mmap, os, pty, select, signal, socket, struct, sys, tempfile, threading, time
from libcriu_py import checkpoint
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
"""

HERE = "with checkpoint(sys.argv[1]):\n    pass\n"
ALLOWED = HERE.replace("[1]", "[1], resources={'fds': {'rules': [{'action': 'ignore', 'kind': 'shared memory'}]}}")

PROGRAMS: dict[str, str] = {
    "threads": f"""
go, seen = threading.Event(), []
def work():
    go.wait()
    seen.append(threading.current_thread().name)
threads = [threading.Thread(target=work, name=f"t{{n}}") for n in range(4)]
for thread in threads:
    thread.start()
{HERE}
go.set()
for thread in threads:
    thread.join()
assert len(seen) == 4
""",
    "asyncio": """
import asyncio
async def main():
    queue = asyncio.Queue()
    async def worker():
        while True:
            number = await queue.get()
            results.append(number * 2)
            queue.task_done()
    results, task = [], asyncio.create_task(worker())
    await queue.put(1)
    await queue.join()
    async with checkpoint(sys.argv[1]):
        pass
    await queue.put(2)
    await queue.join()
    await asyncio.sleep(0.01)
    task.cancel()
    assert results == [2, 4]
asyncio.run(main())
""",
    "child processes": f"""
read_end, write_end = os.pipe()
child = os.fork()
if child == 0:
    os.close(write_end)
    os._exit(7 if os.read(read_end, 1) == b"x" else 8)
{HERE}
os.write(write_end, b"x")
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
""",
    "pseudoterminal": f"""
master, slave = pty.openpty()
fcntl.ioctl(master, 0x5414, struct.pack("HHHH", 33, 77, 0, 0))
{HERE}
os.write(slave, b"hello")
assert os.read(master, 5) == b"hello"
assert os.get_terminal_size(slave) == (77, 33)
""",
    "listening socket on loopback": f"""
server = socket.create_server(("127.0.0.1", 0))
{HERE}
client = socket.create_connection(server.getsockname())
accepted, _ = server.accept()
client.sendall(b"x")
assert accepted.recv(1) == b"x"
""",
    "UDP socket on loopback": f"""
one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
one.bind(("127.0.0.1", 0))
{HERE}
other.sendto(b"x", one.getsockname())
assert one.recv(1) == b"x"
""",
    "Unix socket pair": f"""
one, other = socket.socketpair()
one.send(b"before")
{HERE}
assert other.recv(6) == b"before"
""",
    "shared memory": f"""
area = mmap.mmap(-1, 8192)
area[0:5] = b"early"
child = os.fork()
if child == 0:
    while area[0:4] != b"late":
        time.sleep(0.001)
    area[4096:4100] = b"seen"
    os._exit(0)
{HERE}
area[0:4] = b"late"
os.waitpid(child, 0)
assert area[4096:4100] == b"seen"
""",
    "file in /dev/shm, mapped": f"""
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=4096)
memory.buf[0:3] = b"abc"
{ALLOWED}
assert bytes(memory.buf[0:3]) == b"abc"
memory.unlink()
""",
    "memfd": f"""
memory = os.memfd_create("test")
os.write(memory, b"content")
{HERE}
assert os.pread(memory, 7, 0) == b"content"
""",
    "pipe with data in it": f"""
read_end, write_end = os.pipe()
os.write(write_end, b"before")
{HERE}
assert os.read(read_end, 6) == b"before"
""",
    "epoll": f"""
read_end, write_end = os.pipe()
poller = select.epoll()
poller.register(read_end, select.EPOLLIN)
{HERE}
os.write(write_end, b"x")
assert poller.poll(5) == [(read_end, select.EPOLLIN)]
""",
    "eventfd": f"""
event = checked(libc.eventfd(3, 0))
{HERE}
assert struct.unpack("Q", os.read(event, 8)) == (3,)
""",
    "signalfd": f"""
mask = struct.pack("Q", 1 << (signal.SIGUSR1 - 1)).ljust(128, b"\\0")
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGUSR1}})
signals = checked(libc.signalfd(-1, mask, 0))
{HERE}
os.kill(os.getpid(), signal.SIGUSR1)
assert struct.unpack_from("I", os.read(signals, 128)) == (signal.SIGUSR1,)
""",
    "timerfd": f"""
timer = checked(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))
checked(libc.timerfd_settime(timer, 0, struct.pack("qqqq", 0, 0, 0, 300_000_000), None))
{HERE}
assert struct.unpack("Q", os.read(timer, 8)) == (1,)
""",
    "interval timer": f"""
fired = threading.Event()
signal.signal(signal.SIGALRM, lambda *_: fired.set())
signal.setitimer(signal.ITIMER_REAL, 0.5)
{HERE}
assert fired.wait(5)
""",
    "inotify": f"""
directory = tempfile.mkdtemp()
notify = checked(libc.inotify_init1(0))
checked(libc.inotify_add_watch(notify, os.fsencode(directory), 0x100))
{HERE}
open(os.path.join(directory, "new"), "w").close()
assert b"new" in os.read(notify, 4096)
os.unlink(os.path.join(directory, "new"))
os.rmdir(directory)
""",
    "inotify, with its directories searched": """
directory = tempfile.mkdtemp()
notify = checked(libc.inotify_init1(0))
checked(libc.inotify_add_watch(notify, os.fsencode(directory), 0x100))
with checkpoint(sys.argv[1], options={"force_irmap": True, "irmap_scan_paths": [directory]}):
    pass
open(os.path.join(directory, "new"), "w").close()
assert b"new" in os.read(notify, 4096)
os.unlink(os.path.join(directory, "new"))
os.rmdir(directory)
""",
    "file lock": """
file = tempfile.NamedTemporaryFile(delete=False)
fcntl.flock(file, fcntl.LOCK_EX)
with checkpoint(sys.argv[1], options={"file_locks": True}):
    pass
other = open(file.name)
try:
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    raise SystemExit("the lock is lost")
except BlockingIOError:
    os.unlink(file.name)
""",
    "open file": f"""
file = tempfile.NamedTemporaryFile("w+", delete=False)
file.write("before")
file.flush()
{HERE}
file.write("after")
file.seek(0)
assert file.read() == "beforeafter"
os.unlink(file.name)
""",
    "deleted file": f"""
file = tempfile.TemporaryFile()
named = tempfile.NamedTemporaryFile()
os.unlink(named.name)
for each in (file, named):
    each.write(b"before")
    each.flush()
{HERE}
for each in (file, named):
    each.seek(0)
    assert each.read() == b"before"
named.delete = False
""",
    "working directory": f"""
assert os.getcwd()
{HERE}
assert os.getcwd() == os.environ["EXPECTED_CWD"]
""",
    "signal handlers": f"""
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
{HERE}
os.kill(os.getpid(), signal.SIGUSR1)
assert seen == [1]
""",
    "huge argv": f"""
{HERE}
assert len(sys.argv[1:]) == 10_000 and sys.argv[-1] == "x" * 100
""",
}


Table = dict[str, dict[str, str]]
"""By program and mode, "yes" or "no (NOTE)"."""


def documented() -> Table:
    """Read the table."""
    table = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    names = rows[0][1:]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows[2:]}


def write(table: Table) -> None:
    """Put a table in the place of the one in the document."""
    rows = [["", *MODES], ["---"] * (len(MODES) + 1)]
    rows += [[program, *(table[program][mode] for mode in MODES)] for program in PROGRAMS]
    text = "".join("|" + "|".join(f" {cell} " if cell else " " for cell in row) + "|\n" for row in rows)
    before, begin, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    DOCUMENT.write_text(before + begin + text.replace(" --- ", "---") + END + rest.partition(END)[2], encoding="utf-8")


def cell(program: str, *, works: bool) -> str:
    """Say whether a program works, with the number of the note that says why not."""
    if works:
        return "yes"
    return f"no ({NOTES[program]})" if program in NOTES else "no"


def attempt(name: str, account: Account, directory: Path, env: dict[str, str]) -> str | None:
    """
    Dump and restore a program.

    Args:
        name: Which one.
        account: Who does it.
        directory: An empty directory of the account's.
        env: What forces the mode.

    Returns:
        None if it worked, else the last line of what was said.
    """
    program, snapshot = directory / "program.py", directory / "snapshot"
    program.write_text(f"{HEAD}{PROGRAMS[name]}\nprint('fine')\n", encoding="utf-8")
    account.give(program)
    command: list[str | Path] = [account.python, "-m", "libcriu_py"]
    env = {**env, "EXPECTED_CWD": str(directory), "TMPDIR": str(directory)}
    made = run_with(account, [*command, "snapshot", "-o", snapshot, program, snapshot], env=env, cwd=directory)
    if made.returncode != 0:
        return _reason(made.stderr)
    arguments = [f"{number}" for number in range(9_999)] + ["x" * 100] if name == "huge argv" else []
    done = run_with(account, [*command, "run", "--no-fallback", snapshot, "--", *arguments], env=env, cwd=directory)
    return None if done.stdout == "fine\n" else _reason(done.stderr)


def _reason(text: str) -> str:
    lines = [line for line in text.splitlines() if "criu refused" in line or "Error" in line] or text.splitlines()
    return (lines or ["nothing was said"])[-1]
