"""What goes wrong with libcriu unless the binding sees to it."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.criu.call import Request
from libcriu_py.criu.client import Criu
from libcriu_py.criu.options import DumpOptions, RestoreOptions
from libcriu_py.errors import BinaryNotFound, CriuError, OperationRefused, TransportError, UnsupportedFeature
from tests.system.targets import KDAT, Target, finish_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from libcriu_py.criu.notify import Notification
    from tests.system.accounts import Account

WAIT = "wait_for_usr1()"


def dumped(directory: Path, code: str = WAIT) -> int:
    """Dump a process, which is gone then, and return its pid."""
    with Target(code, cwd=directory) as target:
        Criu().dump(
            {"images_dir": directory, "pid": target.pid, "unprivileged": True, "log_file": "dump.log"}, env=KDAT
        )
        target.wait()
        return target.pid


def restoring(directory: Path, **more: object) -> dict[str, object]:
    """Options of an ordinary restore."""
    return {"images_dir": directory, "unprivileged": True, "log_file": "restore.log", **more}


def children() -> set[int]:
    """All children of this thread, zombies included."""
    with open("/proc/thread-self/children", encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}


@pytest.fixture
def alarms() -> Iterator[list[int]]:
    """Yield a list that grows with each signal, one a millisecond."""
    fired: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        fired.append(number)

    old = signal.signal(signal.SIGALRM, handle)
    signal.siginterrupt(signal.SIGALRM, True)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        yield fired
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_signals_do_not_interrupt_an_operation(tmp_path: Path, alarms: list[int]) -> None:
    """
    A handler that fires all the time delays nothing and breaks nothing.

    libcriu does not retry after EINTR: it would return -ECOMM while criu goes on unseen.
    """
    pid = dumped(tmp_path)
    for _ in range(3):
        assert Criu().restore_child(restoring(tmp_path), env=KDAT) == pid
        assert finish_child(pid) == 42
    assert alarms


def test_a_child_that_ends_at_once_is_not_lost(tmp_path: Path) -> None:
    """The pid comes back although the child is dead by then, and a handler of SIGCHLD runs afterwards."""
    dumped(tmp_path, "ready()\nwhile not os.path.exists('go'): pass\nos._exit(7)\n")
    (tmp_path / "go").touch()
    called = []
    old = signal.signal(signal.SIGCHLD, lambda *_: called.append(True))
    try:
        pid = Criu().restore_child(restoring(tmp_path), env=KDAT)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    finally:
        signal.signal(signal.SIGCHLD, old)
    assert called


def test_criu_gets_the_signal_mask_of_the_caller(tmp_path: Path) -> None:
    """The mask of the call is not handed down: with SIGALRM blocked, criu's timeout would never come."""
    masks = tmp_path / "masks"
    binary = tmp_path / "criu"
    # Without a grep: a shell that starts one blocks signals itself.
    read = f"while read -r name value; do [ $name = SigBlk: ] && echo $value >> {masks}; done < /proc/self/status"
    binary.write_text(f'#!/bin/sh\n{read}\nexec {Criu().binary} "$@"\n', encoding="utf-8")
    binary.chmod(0o755)
    criu = Criu(binary)
    with Target(WAIT) as target:
        criu.dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT)
        target.wait()
    assert finish_child(criu.restore_child(restoring(tmp_path), env=KDAT)) == 42
    blocked = [int(line, 16) for line in masks.read_text(encoding="ascii").splitlines()]
    assert blocked == [0, 0]


def test_the_mask_of_the_caller_is_as_before(tmp_path: Path) -> None:
    """After an operation the thread blocks what it blocked before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        dumped(tmp_path)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before | {signal.SIGUSR2}
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_threads_take_turns(tmp_path: Path) -> None:
    """Operations of several threads neither mix up nor deadlock: each gets its own errno."""
    results: dict[int, object] = {}

    def work(number: int) -> None:
        directory = tmp_path / str(number)
        directory.mkdir()
        try:
            if number % 2:
                results[number] = Criu().dump({"images_dir": directory, "pid": 4194303}, env=KDAT)
            else:
                results[number] = dumped(directory)
        except OperationRefused as error:
            results[number] = error.errno

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[number] for number in (1, 3, 5)] == [3, 3, 3]
    assert len({results[number] for number in (0, 2, 4)}) == 3


@pytest.mark.forked
def test_a_fork_during_an_operation_leaves_the_child_usable(tmp_path: Path) -> None:
    """The lock that another thread held is not held for ever in a forked child."""
    ended = []

    def fork(_notification: Notification) -> None:
        def child() -> None:
            pid = os.fork()
            if pid == 0:
                os._exit(Criu().version().major)
            ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        if not ended:
            thread = threading.Thread(target=child)
            thread.start()
            thread.join()

    with Target(WAIT) as target:
        Criu().dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT, notify=fork)
    assert ended == [Criu().version().major]


def test_an_operation_in_a_callback_is_refused(tmp_path: Path) -> None:
    """It would wait for itself; it raises instead, and so ends the outer operation."""
    with Target(WAIT) as target:
        with pytest.raises(CriuError, match="from a callback"):
            Criu().dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT, notify=lambda _: Criu().version())
        assert target.finish() == 42


def test_a_failed_restore_leaves_no_process_and_no_zombie(tmp_path: Path) -> None:
    """The half-restored child is killed and reaped, and other children are left alone."""
    pid = dumped(tmp_path, "data = open('data', 'w')\n" + WAIT)
    (tmp_path / "data").write_text("grown", encoding="utf-8")
    with Target("os._exit(3) if os.fork() == 0 else None\n" + WAIT) as other:
        before = children()
        for _ in range(5):
            with pytest.raises(OperationRefused, match="changed its size"):
                Criu().restore_child(restoring(tmp_path), env=KDAT)
            assert children() == before
            assert not Path(f"/proc/{pid}").exists()
        assert other.finish() == 42


def test_nothing_is_left_of_many_operations(tmp_path: Path) -> None:
    """Fifty restores leave as many descriptors and children as there were."""
    dumped(tmp_path)
    criu = Criu()
    before = os.listdir("/proc/self/fd"), children()
    for _ in range(50):
        finish_child(criu.restore_child(restoring(tmp_path, config={"timeout": 20}), env=KDAT))
    assert (os.listdir("/proc/self/fd"), children()) == before


def test_a_missing_program_is_said_to_be_missing(tmp_path: Path) -> None:
    """At once where a path is given, and also when it vanishes later."""
    with pytest.raises(BinaryNotFound, match="not an executable file"):
        Criu(tmp_path / "criu")
    binary = shutil.copy("/bin/true", tmp_path / "criu")
    criu = Criu(binary)
    Path(binary).unlink()
    with pytest.raises(BinaryNotFound, match=r"criu: No such file or directory"):
        criu.version()
    with pytest.raises(FileNotFoundError):
        criu.restore_child({"images_dir": tmp_path})
    assert children() == set()


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("#!/bin/sh\necho what a pity >&2\nexit 9\n", "it ended with status 9; it wrote: what a pity"),
        ("#!/bin/sh\nkill -SEGV $$\n", "it was killed by signal 11"),
    ],
)
def test_a_program_that_does_not_answer_is_described(tmp_path: Path, script: str, told: str) -> None:
    """The exception says how it ended and what it wrote, and no zombie is left."""
    binary = tmp_path / "criu"
    binary.write_text(script, encoding="utf-8")
    binary.chmod(0o755)
    with pytest.raises(TransportError, match=told):
        Criu(binary).version()
    with pytest.raises(ConnectionError):
        Criu(binary).restore_child({"images_dir": tmp_path})
    assert children() == set()


@pytest.mark.forked
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give file capabilities")
def test_a_program_that_may_not_be_executed_is_no_missing_one(capability_criu: Path, account: Account) -> None:
    """The errno of the exec comes through: criu with a file capability outside the bounding set gives EPERM."""
    ctypes.CDLL(None).prctl(24, 40, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_CHECKPOINT_RESTORE
    os.setgid(account.gid)
    os.setresuid(account.uid, account.uid, 0)
    try:
        with pytest.raises(TransportError, match=r"cannot start.*Operation not permitted.*bounding set"):
            Criu(capability_criu).version()
    finally:
        os.setresuid(0, 0, 0)  # else pytest-forked may not write its report


def test_the_environment_is_for_criu_alone(tmp_path: Path) -> None:
    """Variables reach criu, and our own environment, also that of C, stays as it was."""
    config = tmp_path / "criu.conf"
    config.write_text(f"log-file {tmp_path / 'from-env.log'}\n", encoding="utf-8")
    (tmp_path / "images").mkdir()
    dumped(tmp_path / "images")
    before = dict(os.environ)
    criu = Criu()
    pid = criu.restore_child({"images_dir": tmp_path / "images"}, env={**KDAT, "CRIU_CONFIG_FILE": str(config)})
    finish_child(pid)
    assert (tmp_path / "from-env.log").exists()
    assert dict(os.environ) == before
    assert b"CRIU_CONFIG_FILE" not in subprocess.run(["env"], check=True, capture_output=True).stdout


@pytest.mark.parametrize("operation", ["dump", "restore", "restore_child"])
def test_config_reaches_criu_on_every_path(tmp_path: Path, operation: str) -> None:
    """Options that only a configuration file can carry work whoever starts criu."""
    criu = Criu()
    config = {"log-file": str(tmp_path / "named.log")}
    if operation == "dump":
        with Target(WAIT) as target:
            criu.dump(DumpOptions(images_dir=tmp_path, pid=target.pid, config=config, timeout=20), env=KDAT)
    else:
        dumped(tmp_path)
        options = RestoreOptions(images_dir=tmp_path, config=config, timeout=20)
        pid = criu.restore_child(options, env=KDAT) if operation == "restore_child" else criu.restore(options, env=KDAT)
        os.kill(pid, signal.SIGUSR1)
        if operation == "restore_child":
            os.waitpid(pid, 0)
    assert (tmp_path / "named.log").exists()
    assert not (tmp_path / "criu.log").exists()


def test_timeout_ends_a_dump_that_takes_too_long(tmp_path: Path) -> None:
    """`timeout` has an effect, unlike criu_set_timeout: a process that cannot be stopped is given up."""
    code = """
    import ctypes
    libc = ctypes.CDLL(None)
    ready()
    if libc.syscall(58) == 0:  # vfork: the parent cannot be interrupted until its child is gone
        libc.prctl(1, 9)
        libc.pause()
    """
    with Target(code, cwd=tmp_path) as target:
        begin = time.monotonic()
        with pytest.raises(CriuError) as refusal:
            Criu().dump(DumpOptions(images_dir=tmp_path, pid=target.pid, timeout=2), env=KDAT)
        took = time.monotonic() - begin
    assert 1 < took < 8, refusal.value


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Yield a directory whose path leaves room in the address of a unix socket."""
    with TemporaryDirectory(prefix="lcp-", dir="/tmp") as directory:
        yield Path(directory)


def test_a_service_is_another_way_to_reach_criu(tmp_path: Path, short_directory: Path) -> None:
    """Dump and version work over the socket of a service, or over one connection; children cannot."""
    address = short_directory / "service"
    read_end, write_end = os.pipe()
    status = ["--status-fd", str(write_end)]
    service = subprocess.Popen(
        [Criu().binary or "", "service", "--address", str(address), "-W", str(tmp_path), "-o", "service.log", *status],
        pass_fds=(write_end,),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(write_end)
    os.read(read_end, 1)
    os.close(read_end)
    try:
        criu = Criu(service_address=address)
        assert criu.version() == Criu().version()
        (tmp_path / "images").mkdir()
        with Target(WAIT) as target:
            criu.dump({"images_dir": tmp_path / "images", "pid": target.pid})
            assert target.wait() == -signal.SIGKILL
        with pytest.raises(ValueError, match="needs a criu program"):
            criu.restore_child({"images_dir": tmp_path / "images"})
        with pytest.raises(ValueError, match="inherit_fds"):
            criu.restore({"images_dir": tmp_path / "images", "inherit_fds": [(3, "x")]})
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(address))
            once = Criu(service_fd=connection.detach())
        assert once.version() == Criu().version()
        with pytest.raises(TransportError, match="used up"):
            once.version()
    finally:
        service.terminate()
        service.wait()
    with pytest.raises(TransportError, match="no criu service answers"):
        criu.version()


def test_check_version_and_features_answer() -> None:
    """It says that this machine will do, in both ways, and its version is that of the program."""
    criu = Criu()
    criu.check(unprivileged=False)
    criu.check(unprivileged=True)
    told = subprocess.run([criu.binary or "", "--version"], check=True, capture_output=True, text=True).stdout
    assert f"Version: {criu.version()}" in told
    features = criu.features()
    assert isinstance(features.mem_track, bool)
    assert isinstance(features.pidfd_store, bool)
    assert isinstance(criu.features(unprivileged=True).pidfd_store, bool)


def test_a_configuration_file_goes_over_the_options(tmp_path: Path) -> None:
    """`config_file` works from CRIU 4.2 on, and says so where it does not."""
    config = tmp_path / "criu.conf"
    config.write_text("log-file other.log\n", encoding="utf-8")
    criu = Criu()
    with Target(WAIT) as target:
        options = DumpOptions(images_dir=tmp_path, pid=target.pid, log_file="dump.log", config_file=config)
        if criu.version() >= (4, 2):
            criu.dump(options, env=KDAT)
            assert (tmp_path / "other.log").exists()
            assert not (tmp_path / "dump.log").exists()
        else:
            with pytest.raises(UnsupportedFeature, match=r"needs CRIU 4\.2"):
                criu.dump(options, env=KDAT)


def test_native_options_keep_their_strings(tmp_path: Path) -> None:
    """The options that C code is given own all they point to, and end with the context."""
    request = Criu().native_options({"images_dir": tmp_path, "log_file": "x.log", "config": {"timeout": 3}}, env=KDAT)
    assert isinstance(request, Request)
    child: Any = request.native.child
    with request as opts:
        assert opts
        assert child.keep_count == 1
    assert not request.native.opts
    request.close()
