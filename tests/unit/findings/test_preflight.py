"""Preflight, rules for descriptors, and fixed variables, looked at from inside one process."""

from __future__ import annotations

import ctypes
import gc
import importlib
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from libcriu_py import preflight
from libcriu_py.findings import Verdict, policies, table
from libcriu_py.findings.finding import Finding
from libcriu_py.program import fork_callbacks
from libcriu_py.resources.locales import from_environment


def finding_of(fd: int, **options: object) -> Finding:
    """Return what preflight says of a descriptor."""
    (found,) = (finding for finding in preflight(options).findings if finding.fd == fd)
    return found


def test_mapped_files_that_may_not_be_there_again() -> None:
    """What is mapped from a file system that is gone after a reboot is named once, with how many more there are."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, ExitStack() as stack:
        for number in range(3):
            file = stack.enter_context((Path(directory) / str(number)).open("w+b"))
            file.truncate(4096)
            stack.enter_context(mmap.mmap(file.fileno(), 4096))
        found = [finding for finding in preflight({}).findings if finding.what.startswith(directory)]
    (finding,) = (finding for finding in found if finding.kind == "mapping")
    assert (finding.verdict, finding.is_problem) == (Verdict.FINE, False)
    assert finding.advice.startswith("it is on tmpfs, as are ")
    assert "gone after a reboot" in finding.advice


def test_memory_under_advice_for_forks_is_named() -> None:
    """What a fork wipes is taken care of; what a fork leaves out is there in copies, and that is told."""
    advices = {18: ("MADV_WIPEONFORK", Verdict.HANDLED), mmap.MADV_DONTFORK: ("MADV_DONTFORK", Verdict.FINE)}
    for advice, (name, verdict) in advices.items():
        with mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            before = {item.what for item in preflight({}).findings if item.advice.startswith(name)}
            memory.madvise(advice)
            found = [item for item in preflight({}).findings if item.advice.startswith(name)]
            (finding,) = (item for item in found if item.what not in before)
            assert (finding.kind, finding.verdict) == ("memory", verdict)


RENEWS = """
import os
PID = os.getpid()
class Ids:
    _pid, other = PID, PID
def renew():
    pass
os.register_at_fork(after_in_child=renew)
"""


@pytest.mark.forked
def test_state_that_nothing_renews_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Callbacks after a fork, and variables that hold the pid, are named; what a resource renews is not."""
    (tmp_path / "renews.py").write_text(RENEWS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("renews", "uuid_utils", "bson"):
        importlib.import_module(name)
    gc.freeze()
    found = {(item.kind, item.what): item for item in preflight({}).findings}
    gc.unfreeze()
    callback = found["fork callback", "renews.renew"]
    assert "after_restore" in callback.advice
    assert not callback.is_problem
    assert ("state kept by pid", "renews.PID") in found
    assert ("state kept by pid", "renews.Ids._pid") in found
    names = [name for kind, name in found if kind in {"fork callback", "state kept by pid"}]
    assert [name for name in names if name.startswith(("renews.Ids.other", "uuid_utils", "bson", "threading"))] == []
    assert fork_callbacks.registered() == fork_callbacks.registered()


NAMED = """
import os, pathlib
class Pool:
    directory = pathlib.Path(f"/tmp/pool-{os.getpid()}")
log, other, number = f"/tmp/{os.getpid()}.log", f"/tmp/1{os.getpid()}", f"pid {os.getpid()}"
"""


@pytest.mark.forked
def test_names_with_the_pid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open files that have the pid in their names, and variables that hold such names, are named."""
    (tmp_path / "named.py").write_text(NAMED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(os, "getpid", lambda: 12345)
    importlib.import_module("named")
    with (tmp_path / "worker-12345").open("w") as file:
        found = [item for item in preflight({}).findings if item.kind == "name with the pid"]
        assert {(item.what, item.fd) for item in found} == {
            ("named.Pool.directory /tmp/pool-12345", None),
            ("named.log /tmp/12345.log", None),
            (file.name, file.fileno()),
        }
    assert all(not item.is_problem and "uuid.uuid4()" in item.advice for item in found)


@pytest.mark.forked
def test_generators_that_cannot_be_reached_are_named(tmp_path: Path) -> None:
    """A library with one in Rust is named with the symbol, unless a resource renews it."""
    library = tmp_path / "some_rust.so"
    code = 'char text[] = "rand-0.9.2/src/rngs/thread.rs"; int f(void) { return text[0]; }'
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=code.encode(), check=True)
    ctypes.CDLL(str(library))
    importlib.import_module("uuid_utils")
    found = [item for item in preflight({}).findings if item.kind == "generator"]
    assert [item.what for item in found] == [f"{library} ThreadRng"]
    assert "for the first time in copies" in found[0].advice
    end = threading.Event()
    threading.Thread(target=end.wait).start()
    (other,) = (item for item in preflight({}).findings if item.kind == "generator" and "_uuid_utils" in item.what)
    assert "start them in copies" in other.advice
    end.set()


def test_kinds_and_verdicts(tmp_path: Path) -> None:
    """Descriptors are told apart, and options make some of them possible."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert finding_of(server.fileno())[:3] == ("TCP listener", f"127.0.0.1:{server.getsockname()[1]}", Verdict.FINE)
        with socket.create_connection(server.getsockname()) as client:
            assert finding_of(client.fileno()).verdict is Verdict.NEEDS_HOOK
            assert finding_of(client.fileno(), tcp_close=True).verdict is Verdict.HANDLED
    with (tmp_path / "log").open("w") as log:
        assert finding_of(log.fileno()).kind == "file"
        assert "size" in finding_of(log.fileno()).advice
    with tempfile.TemporaryFile() as gone:
        gone.write(b"x" * (2 << 20))
        gone.flush()
        assert finding_of(gone.fileno()).verdict is Verdict.NEEDS_HOOK
        assert finding_of(gone.fileno(), ghost_limit=4 << 20).verdict is Verdict.FINE
    one, other = socket.socketpair()
    with one, other:
        assert finding_of(one.fileno()).verdict is Verdict.FINE
    read, write = os.pipe()
    assert finding_of(read).kind == finding_of(write).kind == "pipe"
    os.close(read)
    os.close(write)


def test_table_has_problems_last() -> None:
    """What is in the way is where it is seen."""
    fine = Finding("pipe", "pipe:[1]", Verdict.FINE, fd=9)
    bad = Finding("io_uring", "ring", Verdict.IMPOSSIBLE, "close it", 4, ("app.py:3 in main",))
    assert table([bad, fine]).splitlines() == [
        "fine        fd 9   pipe: pipe:[1]",
        "impossible  fd 4   io_uring: ring",
        "                   close it",
        "                   opened at app.py:3 in main",
    ]
    assert str(bad) == "io_uring ring (fd 4): close it; opened at app.py:3 in main"


def test_first_rule_that_fits() -> None:
    """Order decides; a glob is for all of a path."""
    rules = [
        policies.policy({"action": "ignore", "match": "/var/log/keep*"}),
        policies.policy({"action": "reopen", "kind": "file", "match": "/var/log/*"}),
    ]
    for path, kind, action in (
        ("/var/log/keep.log", "file", "ignore"),
        ("/var/log/app/x.log", "file", "reopen"),
        ("/var/log/app", "directory", ""),
        ("/srv/data", "file", ""),
    ):
        assert policies.first_fit(rules, Finding(kind, path, Verdict.FINE, fd=7)) == action


@pytest.mark.parametrize("values", [{"action": "shut"}, {"kind": "file"}, {"action": "close", "glob": "x"}])
def test_wrong_rules(values: dict[str, str]) -> None:
    """A rule that means nothing is refused."""
    with pytest.raises(ValueError, match="is no rule for descriptors"):
        policies.policy(values)


def test_null_and_reopen(tmp_path: Path) -> None:
    """The number stays, inheritable or not; what was written is appended to, what was read goes on."""
    path = tmp_path / "file"
    path.write_text("abcdef")
    fd = os.open(path, os.O_RDONLY)
    os.set_inheritable(fd, True)
    os.read(fd, 2)
    kept = policies.apply("reopen", Finding("file", str(path), Verdict.FINE, fd=fd))
    assert os.readlink(f"/proc/self/fd/{fd}") == os.devnull
    assert kept is not None
    kept.reopen()
    assert os.read(fd, 9) == b"cdef"
    assert os.get_inheritable(fd)
    policies.apply("null", Finding("file", str(path), Verdict.FINE, fd=fd))
    assert os.read(fd, 9) == b""
    policies.apply("close", Finding("file", str(path), Verdict.FINE, fd=fd))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_locale_of_an_environment() -> None:
    """LC_ALL goes before a category's own variable, and that before LANG."""
    env = {"LANG": "a", "LC_TIME": "b"}
    assert from_environment("LC_TIME", env) == "b"
    assert from_environment("LC_NUMERIC", env) == "a"
    assert from_environment("LC_TIME", {**env, "LC_ALL": "c"}) == "c"
    assert from_environment("LC_TIME", {}) == "C"


@pytest.mark.usefixtures("unmeasured")
def test_restore_path_stays_light() -> None:
    """What a restore imports has no resource in it, and resources import none of the libraries that they are for."""
    import subprocess

    code = (
        "import sys, libcriu_py.dump.spawn, libcriu_py.snapshot\n"
        "print([name for name in sys.modules if name.startswith(('libcriu_py.resources', 'libcriu_py.findings'))])\n"
        "from libcriu_py.resources import BuiltIns\n"
        "BuiltIns().find()\n"
        "print([name for name in ('random', 'ssl', 'asyncio', 'logging', 'ctypes') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n[]\n"
