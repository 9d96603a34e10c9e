"""Dump and restore through the binding: the scenarios of CRIU's own libcriu tests, and more."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.criu.notify import Action, Notification
from libcriu_py.criu.options import (
    CgroupMode,
    CgroupRoot,
    CpuCapability,
    DumpOptions,
    DumpOutcome,
    InheritFd,
    Iteration,
    JoinNamespace,
    LogLevel,
    NetworkLock,
    PageServer,
    PreDumpOptions,
    RestoreOptions,
)
from libcriu_py.errors import OperationRefused
from libcriu_py.images import readers
from tests.system.targets import KDAT, Target, finish_child, killed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT = "wait_for_usr1()"

SELF = """
import os, signal, sys
from libcriu_py.criu.client import Criu
from libcriu_py.criu.options import DumpOptions

images, marks = sys.argv[1:]
for fd in range(3, 64):
    if fd != READY:
        try:
            os.close(fd)
        except OSError:
            pass
ready()
outcome = Criu().dump(DumpOptions(images_dir=images, log_file="dump.log", unprivileged=True), env={env})
with open(marks, "a") as file:
    file.write(outcome.name + "\\n")
os._exit(17)
"""


def dump_options(directory: Path, target: Target, **more: object) -> DumpOptions:
    """Options of an ordinary dump."""
    options = DumpOptions(images_dir=directory, pid=target.pid, log_file="dump.log", unprivileged=True)
    return DumpOptions(**{**options.to_native(), **more})  # type: ignore[arg-type]


def restore_options(directory: Path, **more: object) -> RestoreOptions:
    """Options of an ordinary restore."""
    options = RestoreOptions(images_dir=directory, log_file="restore.log", unprivileged=True)
    return RestoreOptions(**{**options.to_native(), **more})  # type: ignore[arg-type]


def test_a_child_is_dumped_and_restored_again_and_again(tmp_path: Path) -> None:
    """A dumped process is gone; each copy has its pid, is our child and ends as the original would."""
    criu = Criu()
    with Target(WAIT) as target:
        assert criu.dump(dump_options(tmp_path, target), env=KDAT) is DumpOutcome.DUMPED
        assert target.wait() == -signal.SIGKILL
    for _ in range(3):
        pid = criu.restore_child(restore_options(tmp_path), env=KDAT)
        assert pid == target.pid
        assert finish_child(pid) == 42


def test_leave_running_leaves_the_process_running(tmp_path: Path) -> None:
    """The process goes on after its dump and is not our business any more."""
    with Target(WAIT) as target:
        Criu().dump(dump_options(tmp_path, target, leave_running=True), env=KDAT)
        assert target.alive()
        assert target.finish() == 42


@pytest.mark.forked
def test_a_restore_that_is_no_child_goes_to_a_reaper(tmp_path: Path) -> None:
    """`restore` gives the tree to init or the nearest subreaper, which here is this process."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    criu = Criu()
    with Target(WAIT) as target:
        criu.dump(dump_options(tmp_path, target), env=KDAT)
        target.wait()
    pid = criu.restore(restore_options(tmp_path), env=KDAT)
    assert finish_child(pid) == 42


def self_dump(tmp_path: Path, code: str) -> list[readers.Process]:
    """Let a program dump itself, restore it three times, and return what was dumped."""
    directory, marks = tmp_path / "images", tmp_path / "marks"
    directory.mkdir()
    program = code.replace("{env}", repr(KDAT))
    with Target(program, arguments=(str(directory), str(marks)), stderr_path=tmp_path / "stderr") as target:
        assert target.wait() == -signal.SIGKILL, (tmp_path / "stderr").read_text(encoding="utf-8")
    assert not marks.exists()
    criu = Criu()
    for count in range(1, 4):
        pid = criu.restore_child(restore_options(directory), env=KDAT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17
        assert marks.read_text(encoding="utf-8") == "RESTORED\n" * count
    return readers.process_tree(directory)


def test_a_process_dumps_itself_without_a_zombie(tmp_path: Path) -> None:
    """
    The image of a self-dump holds that process alone, and the call says RESTORED in each copy.

    libcriu's own way leaves a zombie child, which is dumped too and makes two processes of one.
    """
    assert len(self_dump(tmp_path, SELF)) == 1


def test_a_subreaper_dumps_itself_and_stays_one(tmp_path: Path) -> None:
    """The orphaned criu does not fall back to a process that adopts orphans, and it adopts them again afterwards."""
    check = "got = ctypes.c_int(); libc.prctl(37, ctypes.byref(got)); assert got.value == 1\nwith open(marks"
    code = SELF.replace("ready()\n", "import ctypes; libc = ctypes.CDLL(None); libc.prctl(36, 1)\nready()\n")
    assert len(self_dump(tmp_path, code.replace("with open(marks", check))) == 1


def test_a_self_dump_without_a_kill_says_dumped(tmp_path: Path) -> None:
    """With leave_running the original gets DUMPED, and the copy RESTORED."""
    directory, marks = tmp_path / "images", tmp_path / "marks"
    directory.mkdir()
    code = SELF.replace("{env}", repr(KDAT)).replace("log_file=", "leave_running=True, log_file=")
    with Target(code, arguments=(str(directory), str(marks)), stderr_path=tmp_path / "stderr") as target:
        assert target.wait() == 17, (tmp_path / "stderr").read_text(encoding="utf-8")
    assert marks.read_text(encoding="utf-8") == "DUMPED\n"
    marks.unlink()
    pid = Criu().restore_child(restore_options(directory), env=KDAT)
    os.waitpid(pid, 0)
    assert marks.read_text(encoding="utf-8") == "RESTORED\n"


def test_a_failed_self_dump_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    """The refusal is raised in the process, without children or new descriptors."""
    code = f"""
    import os, sys, fcntl
    from libcriu_py.criu.client import Criu
    from libcriu_py.errors import OperationRefused
    lock = open(sys.argv[1] + "/lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    criu = Criu()
    import libcriu_py.criu.options, libcriu_py.criu.hints
    ready()
    before = os.listdir("/proc/self/fd")
    try:
        criu.dump({{"images_dir": sys.argv[1], "unprivileged": True}}, env={KDAT!r})
    except OperationRefused as error:
        assert "file locks" in str(error), error
    else:
        os._exit(1)
    assert open("/proc/thread-self/children").read() == ""
    assert os.listdir("/proc/self/fd") == before, (before, os.listdir("/proc/self/fd"))
    os._exit(0)
    """
    with Target(code, arguments=(str(tmp_path),), stderr_path=tmp_path / "stderr") as target:
        assert target.wait() == 0, (tmp_path / "stderr").read_text(encoding="utf-8")


def test_before_wait_runs_with_criu_there_and_nothing_asked(tmp_path: Path) -> None:
    """`before_wait` is the moment at which criu has its privileges already and the caller may drop its own."""
    seen: list[object] = []
    with Target(WAIT) as target:

        def look() -> None:
            with open("/proc/thread-self/children", encoding="ascii") as children:
                pids = children.read().split()
            seen.extend(os.readlink(f"/proc/{pid}/exe") for pid in pids if int(pid) != target.pid)
            seen.append(target.alive())

        Criu().dump(dump_options(tmp_path, target), env=KDAT, before_wait=look)
    assert seen == [os.path.realpath(Criu().binary or ""), True]


def test_an_exception_of_before_wait_ends_criu_and_dumps_nothing(tmp_path: Path) -> None:
    """The exception comes out, the process lives, and criu is gone."""

    def fail() -> None:
        raise KeyError("no")

    with Target(WAIT) as target:
        with pytest.raises(KeyError):
            Criu().dump(dump_options(tmp_path, target), before_wait=fail)
        assert target.finish() == 42
    assert not list(tmp_path.iterdir())


def test_impossible_dumps_are_refused_before_they_hang(tmp_path: Path) -> None:
    """A callback for a self-dump, and the own pid as a target, cannot work."""
    with pytest.raises(ValueError, match="self-dump cannot have notify"):
        Criu().dump(DumpOptions(images_dir=tmp_path), notify=print)
    with pytest.raises(ValueError, match="leave pid out"):
        Criu().dump(DumpOptions(images_dir=tmp_path, pid=os.getpid()))
    with pytest.raises(ValueError, match="needs the pid of another process"):
        Criu().pre_dump(PreDumpOptions(images_dir=tmp_path))


def test_pid_1_cannot_dump_itself(tmp_path: Path) -> None:
    """In a pid namespace of its own, the refusal says why and what to do."""
    code = f"""
import os
from libcriu_py.criu.client import Criu
from libcriu_py.errors import OperationRefused
try:
    Criu().dump({{"images_dir": {str(tmp_path)!r}}})
except OperationRefused as error:
    assert "--init" in str(error)
    os._exit(5)
"""
    ended = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", code], check=False)
    assert ended.returncode == 5


@contextlib.contextmanager
def memory_tracking() -> Iterator[None]:
    """Expect pre-dumps to work where the kernel tracks memory changes, and to be refused with the reason where not."""
    if Criu().features().mem_track:
        yield
        return
    with pytest.raises(OperationRefused, match="kernel does not track memory changes"):
        yield


def test_a_pre_dump_is_the_parent_of_a_dump(tmp_path: Path) -> None:
    """The process goes on after a pre-dump, and a dump with parent images restores."""
    criu = Criu()
    (tmp_path / "0").mkdir()
    (tmp_path / "1").mkdir()
    with Target(WAIT) as target, memory_tracking():
        criu.pre_dump(
            PreDumpOptions(images_dir=tmp_path / "0", pid=target.pid, log_file="dump.log", log_level=LogLevel.DEBUG)
        )
        assert target.alive()
        assert readers.saved_memory(tmp_path / "0", target.pid) > 0
        criu.dump(dump_options(tmp_path / "1", target, parent_images="../0", unprivileged=None))
        target.wait()
        assert finish_child(criu.restore_child(restore_options(tmp_path / "1"), env=KDAT)) == 42


def test_a_dump_in_iterations_changes_its_directory_each_time(tmp_path: Path) -> None:
    """After each pre-dump the callback says where to go on, and the last one is a dump."""
    seen = []

    def next_iteration(done: int) -> Iteration:
        seen.append(done)
        (tmp_path / str(done)).mkdir()
        return Iteration(tmp_path / str(done), f"../{done - 1}", final=done == 2)

    criu = Criu()
    (tmp_path / "0").mkdir()
    with Target(WAIT) as target, memory_tracking():
        criu.dump_iters(dump_options(tmp_path / "0", target, unprivileged=None), next_iteration, env=KDAT)
        assert target.wait() == -signal.SIGKILL
        assert seen == [1, 2]
        assert finish_child(criu.restore_child(restore_options(tmp_path / "2"), env=KDAT)) == 42


def test_an_exception_ends_the_iterations(tmp_path: Path) -> None:
    """The exception of the callback comes out, and the process goes on."""

    def fail(_done: int) -> Iteration:
        raise LookupError("enough")

    with Target(WAIT) as target:
        with memory_tracking(), pytest.raises(LookupError, match="enough"):
            Criu().dump_iters(dump_options(tmp_path, target, unprivileged=None), fail, env=KDAT)
        assert target.finish() == 42


def test_notifications_tell_the_stages(tmp_path: Path) -> None:
    """Dump and restore call back at their stages, with the pid of the root where there is one."""
    criu = Criu()
    told: list[Notification] = []
    with Target(WAIT) as target:
        criu.dump(dump_options(tmp_path, target), env=KDAT, notify=told.append)
    assert [notification.action for notification in told][:1] == [Action.PRE_DUMP]
    assert Action.POST_DUMP in {notification.action for notification in told}
    told.clear()
    pid = criu.restore_child(restore_options(tmp_path), env=KDAT, notify=told.append)
    assert finish_child(pid) == 42
    actions = [notification.action for notification in told]
    assert actions.index(Action.PRE_RESTORE) < actions.index(Action.POST_RESTORE) < actions.index(Action.POST_RESUME)
    assert {notification.pid for notification in told if notification.action is Action.POST_RESTORE} == {pid}


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_a_notification_ends_the_dump_and_comes_out(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever is raised, the dump is abandoned and the process goes on."""

    def fail(_notification: Notification) -> None:
        raise error("from the callback")

    with Target(WAIT) as target:
        with pytest.raises(error, match="from the callback"):
            Criu().dump(dump_options(tmp_path, target), env=KDAT, notify=fail)
        assert target.finish() == 42


def test_what_a_notification_returns_is_not_a_verdict(tmp_path: Path) -> None:
    """A true return value of the callback does not end the dump, as it would in C."""
    with Target(WAIT) as target:
        assert Criu().dump(dump_options(tmp_path, target), env=KDAT, notify=lambda _: 1) is DumpOutcome.DUMPED


def test_an_exception_in_a_notification_ends_the_restore_without_a_trace(tmp_path: Path) -> None:
    """The half-restored process is neither running nor a zombie."""

    def fail(notification: Notification) -> None:
        if notification.action is Action.POST_RESTORE:
            raise LookupError("no")

    criu = Criu()
    with Target(WAIT) as target:
        criu.dump(dump_options(tmp_path, target), env=KDAT)
        target.wait()
    with pytest.raises(LookupError):
        criu.restore_child(restore_options(tmp_path), env=KDAT, notify=fail)
    with pytest.raises(ProcessLookupError):
        os.kill(target.pid, 0)
    assert finish_child(criu.restore_child(restore_options(tmp_path), env=KDAT)) == 42


@pytest.mark.forked
def test_descriptors_are_inherited_without_being_inheritable(tmp_path: Path) -> None:
    """A pipe replaces a file, also under a standard descriptor's number, and leaks into no other child."""
    criu = Criu()
    (tmp_path / "out").touch()
    code = """
    out = os.open('out', os.O_WRONLY)
    ready()
    signal.sigwait({signal.SIGUSR1})
    os.write(out, b'here')
    os._exit(42)
    """
    with Target(code, cwd=tmp_path) as target:
        criu.dump(dump_options(tmp_path, target), env=KDAT)
        target.wait()
    read_end, write_end = os.pipe()
    saved = os.dup(0)
    for fd in (write_end, 0):
        os.dup2(write_end, 0)
        inherited = [InheritFd(fd, str(tmp_path / "out").lstrip("/"))]
        pid = criu.restore_child(restore_options(tmp_path, inherit_fds=inherited, shell_job=True), env=KDAT)
        assert finish_child(pid) == 42
        assert os.read(read_end, 10) == b"here"
        assert not os.get_inheritable(write_end)
    os.dup2(saved, 0)
    for fd in (read_end, write_end, saved):
        os.close(fd)


def test_pages_go_to_a_page_server(tmp_path: Path) -> None:
    """`page_server` works, although its setter reports a failure before CRIU 4.3."""
    criu = Criu()
    (tmp_path / "pages").mkdir()
    (tmp_path / "images").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    read_end, write_end = os.pipe()
    place = ["--images-dir", str(tmp_path / "pages"), "-o", "server.log"]
    status = ["--status-fd", str(write_end)]
    server = subprocess.Popen(
        [criu.binary or "", "page-server", *place, "--address", "127.0.0.1", "--port", str(port), *status],
        pass_fds=(write_end,),
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    os.read(read_end, 1)
    os.close(read_end)
    with Target(WAIT) as target:
        options = dump_options(tmp_path / "images", target, page_server=PageServer("127.0.0.1", port))
        criu.dump(options, env=KDAT)
    assert server.wait(10) == 0
    assert list((tmp_path / "pages").glob("pages-*.img"))
    assert not list((tmp_path / "images").glob("pages-*.img"))


def test_modes_and_lists_reach_criu(tmp_path: Path) -> None:
    """Enumerations, lists and numbers of all kinds are taken by criu."""
    with Target(WAIT) as target:
        options = dump_options(
            tmp_path,
            target,
            manage_cgroups_mode=CgroupMode.IGNORE,
            network_lock=NetworkLock.SKIP,
            skip_mounts=["/nowhere"],
            enable_fs=["tmpfs"],
            external=["mnt[/nowhere]:nothing"],
            irmap_scan_paths=["/tmp"],
            cgroup_controllers=["nothing"],
            cgroup_roots=[CgroupRoot(None, "/"), CgroupRoot("memory", "/x")],
            ghost_limit=1 << 22,
            cpu_cap=CpuCapability.ALL,
            log_level=LogLevel.DEBUG,
        )
        assert Criu().dump(options, env=KDAT) is DumpOutcome.DUMPED
    log = (tmp_path / "dump.log").read_text(encoding="utf-8", errors="replace")
    assert "Debug" in log or len(log) > 10000


def test_a_restored_process_joins_a_namespace(tmp_path: Path) -> None:
    """With `join_ns` a process that had a UTS namespace of its own comes back in the one that is named."""
    unshare = "import ctypes\nctypes.CDLL(None).unshare(0x4000000)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [10])\n"
    criu = Criu()
    with Target(unshare + WAIT) as target, Target(unshare + WAIT) as other:
        criu.dump(dump_options(tmp_path, target, unprivileged=None), env=KDAT)
        target.wait()
        joined = [JoinNamespace("uts", f"/proc/{other.pid}/ns/uts")]
        with killed(criu.restore_child(restore_options(tmp_path, unprivileged=None, join_ns=joined), env=KDAT)) as pid:
            assert os.readlink(f"/proc/{pid}/ns/uts") == os.readlink(f"/proc/{other.pid}/ns/uts")


def test_a_directory_may_be_a_descriptor_which_stays_open(tmp_path: Path) -> None:
    """A descriptor given as a directory is the caller's."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Target(WAIT) as target:
            Criu().dump({"images_dir": fd, "pid": target.pid, "unprivileged": True, "work_dir": fd}, env=KDAT)
        assert os.fstat(fd)
        assert (tmp_path / "criu.log").exists()
    finally:
        os.close(fd)


def test_images_are_read(tmp_path: Path) -> None:
    """What the reader tells of an image is what the process had."""
    listen = "socket.create_server(('127.0.0.1', 0))"
    if Criu().version() < (4, 2):  # cannot dump TCP sockets of a kernel of 6.16 or newer, see sockets.c
        listen = "socket.socket(socket.AF_UNIX); listener.bind('127.0.0.1:0'); listener.listen()"
    code = f"import socket\nlistener = {listen}\ndata = open('data', 'w')\n{WAIT}"
    with Target(code, cwd=tmp_path, new_session=True) as target:
        with open(f"/proc/{target.pid}/maps", encoding="utf-8") as maps:
            areas = [line for line in maps if "[v" not in line]
        Criu().dump(dump_options(tmp_path, target), env=KDAT)
    (process,) = readers.process_tree(tmp_path)
    assert (process.pid, process.sid, process.ppid, process.threads) == (target.pid, target.pid, 0, (target.pid,))
    names = {descriptor.file.name for descriptor in readers.descriptors(tmp_path, target.pid)}
    assert str(tmp_path / "data") in names
    assert any(name.startswith("127.0.0.1:") for name in names)
    mappings = [mapping for mapping in readers.memory(tmp_path, target.pid) if mapping.kind != "vdso"]
    assert [f"{mapping.start:08x}-{mapping.end:08x}" for mapping in mappings] == [area.split()[0] for area in areas]
    assert {"heap", "stack", "file, private"} <= {mapping.kind for mapping in mappings}
    stats = readers.dump_stats(tmp_path)
    assert stats["pages_written"] * os.sysconf("SC_PAGE_SIZE") == readers.saved_memory(tmp_path, target.pid)
    assert readers.inventory(tmp_path).version >= 1


def test_errno_and_return_code_are_reported(tmp_path: Path) -> None:
    """A refusal carries what criu reported: ESRCH without the process, EEXIST where the pid is taken."""
    criu = Criu()
    with pytest.raises(OperationRefused) as refusal:
        criu.dump({"images_dir": tmp_path, "pid": 4194303}, env=KDAT)
    assert (refusal.value.errno, refusal.value.returncode, refusal.value.operation) == (3, -52, "dump")
    with Target(WAIT) as target:
        criu.dump(dump_options(tmp_path, target, leave_running=True), env=KDAT)
        with pytest.raises(OperationRefused) as refusal:
            criu.restore_child(restore_options(tmp_path), env=KDAT)
    assert (refusal.value.errno, refusal.value.operation) == (17, "restore")
    assert refusal.value.log_path == str(tmp_path / "restore.log")
    assert refusal.value.log_tail
