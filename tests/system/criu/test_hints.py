"""Each known cause of a refusal, provoked for real, is explained in plain words."""

from __future__ import annotations

import os
import pty
import socket
import subprocess
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import pytest

from libcriu_py.criu.client import Criu
from libcriu_py.errors import OperationRefused
from tests.system.accounts import Account, run_as
from tests.system.targets import KDAT, Target, killed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

WAIT = "wait_for_usr1()"


class Cause(NamedTuple):
    """
    A way to make criu refuse.

    Attributes:
        code: What the process does.
        hint: A part of the hint that is due.
        options: Options of the operation that fails.
        break_it: What is changed between a good dump and the restore that fails; None if the dump fails.
    """

    code: str
    hint: str
    options: Mapping[str, object] = MappingProxyType({})
    break_it: Callable[[Path, Path], object] | None = None


def unlink(pattern: str) -> Callable[[Path, Path], object]:
    """Return a change that removes image files."""

    def change(_work: Path, images: Path) -> None:
        for path in images.glob(pattern):
            path.unlink()

    return change


def overwrite(pattern: str) -> Callable[[Path, Path], object]:
    """Return a change that damages image files."""

    def change(_work: Path, images: Path) -> None:
        for path in images.glob(pattern):
            path.write_bytes(b"junk" * 8)

    return change


def cut_short(pattern: str) -> Callable[[Path, Path], object]:
    """Return a change that cuts image files short."""

    def change(_work: Path, images: Path) -> None:
        for path in images.glob(pattern):
            os.truncate(path, 30)

    return change


UNSHARE = "import ctypes\nctypes.CDLL(None).unshare({})\n"
OPEN_DATA = "data = open('data', 'w'); data.write('x'); data.flush()\n"

CAUSES = {
    "io_uring": Cause(
        "import ctypes\nassert ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0\n" + WAIT,
        "io_uring",
    ),
    "flock": Cause("import fcntl\nf = open('l', 'w'); fcntl.flock(f, fcntl.LOCK_EX)\n" + WAIT, "set file_locks"),
    "posix lock": Cause("import fcntl\nf = open('l', 'w'); fcntl.lockf(f, fcntl.LOCK_EX)\n" + WAIT, "set file_locks"),
    "established tcp": Cause(
        "import socket\nl = socket.create_server(('127.0.0.1', 0))\n"
        "c = socket.create_connection(l.getsockname()); s, _ = l.accept()\n" + WAIT,
        "established TCP connection",
    ),
    "multipath tcp": Cause(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\n" + WAIT, "multipath TCP"
    ),
    "large ghost file": Cause(
        "f = open('big', 'wb'); f.write(b'x' * (3 << 20)); f.flush(); os.unlink('big')\n" + WAIT,
        "raise that to 3145728",
    ),
    "deleted name": Cause(
        "f = open('a', 'w'); f.write('x'); f.flush(); os.link('a', 'b'); os.unlink('a')\n" + WAIT, "set link_remap"
    ),
    "no such process": Cause(WAIT, "no such process", {"pid": 4194303}),
    "pidfd of an outsider": Cause("k = os.pidfd_open(os.getppid())\n" + WAIT, "pidfd of a process outside"),
    "character device": Cause("k = os.open('/dev/loop-control', os.O_RDWR)\n" + WAIT, "is the device 10:237"),
    "anonymous inode": Cause(
        "import ctypes\nassert ctypes.CDLL(None).syscall(323, 0) >= 0\n" + WAIT,
        "descriptor 3 of the process is a anon_inode",
    ),
    "vsock": Cause(
        "import socket\nk = socket.socket(socket.AF_VSOCK)\n" + WAIT, "socket of a kind that CRIU cannot dump"
    ),
    "file on a foreign mount": Cause(
        "import ctypes\nassert ctypes.CDLL(None).syscall(447, 0) >= 0\n" + WAIT, "on a mount that the mount namespace"
    ),
    "user namespace": Cause(UNSHARE.format(0x10000000) + WAIT, "in a user namespace"),
    "time namespace": Cause(UNSHARE.format(0x80) + WAIT, "a time namespace was made by unshare"),
    "pid namespace": Cause(
        UNSHARE.format(0x20000000)
        + "if os.fork() == 0:\n    ctypes.CDLL(None).prctl(1, 9); os.close(READY); signal.pause()\n"
        + WAIT,
        "a pid namespace was made by unshare",
    ),
    "System V memory": Cause(
        "import ctypes\nl = ctypes.CDLL(None); l.shmat.restype = ctypes.c_void_p\n"
        "i = l.shmget(0, 4096, 0o1600); l.shmat(i, None, 0); l.shmctl(i, 0, None)\n" + WAIT,
        "System V shared memory",
    ),
    "slash in log_file": Cause(WAIT, "without slashes", {"log_file": "a/b"}),
    "parent images": Cause(WAIT, "parent_images", {"parent_images": "../nowhere"}),
    "freezer": Cause(WAIT, "freezer cgroup", {"freeze_cgroup": "/nowhere"}),
    "file grew": Cause(
        OPEN_DATA + WAIT, "changed its size", {}, lambda work, _: (work / "data").write_text("longer", encoding="utf-8")
    ),
    "mode changed": Cause(OPEN_DATA + WAIT, "skip_file_rwx_check", {}, lambda work, _: (work / "data").chmod(0o600)),
    "file gone": Cause(OPEN_DATA + WAIT, "is gone; put it back", {}, lambda work, _: (work / "data").unlink()),
    "working directory gone": Cause(
        "os.mkdir('x'); os.chdir('x')\n" + WAIT, "working directory", {}, lambda work, _: (work / "x").rmdir()
    ),
    "mapped file changed": Cause(
        "import shutil, mmap\nshutil.copy('/bin/true', 't'); f = open('t', 'rb')\n"
        "m = mmap.mmap(f.fileno(), 0, prot=1)\n" + WAIT,
        "changed its size",
        {},
        lambda work, _: os.truncate(work / "t", 100),
    ),
    "fifo gone": Cause(
        "os.mkfifo('ff'); k = os.open('ff', os.O_RDWR)\n" + WAIT,
        "is gone; put it back",
        {},
        lambda work, _: (work / "ff").unlink(),
    ),
    "image gone": Cause(WAIT, "image file is missing", {}, unlink("core-*.img")),
    "inventory gone": Cause(WAIT, "image file is missing", {}, unlink("inventory.img")),
    "image damaged": Cause(WAIT, "missing or damaged", {}, overwrite("core-*.img")),
    "image cut short": Cause(WAIT, "missing or damaged", {}, cut_short("mm-*.img")),
    "inherit fd": Cause(WAIT, "descriptor 999 of inherit_fds", {"inherit_fds": [(999, "x")]}, lambda *_: None),
    "namespace to join": Cause(WAIT, "namespace to join", {"join_ns": [("net", "/nowhere", None)]}, lambda *_: None),
}


def refused(work: Path, cause: Cause) -> OperationRefused:
    """Provoke a cause."""
    images = work / "images"
    images.mkdir()
    criu = Criu()
    dump = {"images_dir": images, "unprivileged": True, "log_file": "dump.log"}
    with Target(cause.code, cwd=work) as target:
        dump["pid"] = target.pid
        if cause.break_it is None:
            with pytest.raises(OperationRefused) as refusal:
                criu.dump({**dump, **cause.options}, env=KDAT)
            return refusal.value
        criu.dump(dump, env=KDAT)
        target.wait()
    cause.break_it(work, images)
    restore = {"images_dir": images, "unprivileged": True, "log_file": "restore.log", **cause.options}
    with pytest.raises(OperationRefused) as refusal, killed(criu.restore_child(restore, env=KDAT)):
        pass
    return refusal.value


@pytest.mark.parametrize("name", CAUSES)
def test_a_known_cause_is_explained(name: str, tmp_path: Path) -> None:
    """The hint names the cause, and the message carries it."""
    refusal = refused(tmp_path, CAUSES[name])
    assert CAUSES[name].hint in (refusal.hint or ""), refusal
    assert refusal.hint is not None
    assert refusal.hint in str(refusal)
    assert refusal.reason


def test_a_taken_pid_is_explained(tmp_path: Path) -> None:
    """A restore over the running original says that the pid is in use."""
    criu = Criu()
    with Target(WAIT, cwd=tmp_path) as target:
        criu.dump({"images_dir": tmp_path, "pid": target.pid, "leave_running": True}, env=KDAT)
        with pytest.raises(OperationRefused, match="pid of the dumped process is in use") as refusal:
            criu.restore_child({"images_dir": tmp_path, "log_file": "restore.log"}, env=KDAT)
        assert target.finish() == 42
    assert "File exists" in refusal.value.reason


def test_a_terminal_is_explained(tmp_path: Path) -> None:
    """A process on a terminal needs shell_job."""
    master, slave = pty.openpty()
    try:
        with (
            Target(WAIT, cwd=tmp_path, stdin=slave) as target,
            pytest.raises(OperationRefused, match=r"terminal of the outside.*shell_job"),
        ):
            Criu().dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT)
    finally:
        os.close(master)
        os.close(slave)


def test_a_shared_session_is_explained(tmp_path: Path) -> None:
    """A process that leads no session needs setsid or shell_job; one whose session has no number here, setsid."""
    reason = "shares its session" if os.getsid(0) else "start it with: setsid"
    with (
        Target(WAIT, cwd=tmp_path, new_session=False) as target,
        pytest.raises(OperationRefused, match=reason),
    ):
        Criu().dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT)


def test_an_external_unix_socket_is_explained(tmp_path: Path) -> None:
    """A connection to a service outside is named as such."""
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(tmp_path / "s"))
        service.listen()
        code = "import socket\nk = socket.socket(socket.AF_UNIX); k.connect('s')\n" + WAIT
        with (
            Target(code, cwd=tmp_path) as target,
            service.accept()[0],
            pytest.raises(OperationRefused, match="unix socket whose other end is outside"),
        ):
            Criu().dump({"images_dir": tmp_path, "pid": target.pid}, env=KDAT)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """Yield a directory on which a read-only mount can be made; the mount is removed in the end."""
    directory = tmp_path / "images"
    directory.mkdir()
    yield directory
    subprocess.run(["umount", directory], check=False, capture_output=True)


def test_a_read_only_directory_is_explained(read_only: Path, tmp_path: Path) -> None:
    """A restore that cannot write its log asks for work_dir, and works with it."""
    criu = Criu()
    with Target(WAIT, cwd=tmp_path) as target:
        criu.dump({"images_dir": read_only, "pid": target.pid}, env=KDAT)
        target.wait()
    subprocess.run(["mount", "--bind", "-o", "ro", read_only, read_only], check=True)
    with pytest.raises(OperationRefused, match=r"name another .*work_dir"):
        criu.restore_child({"images_dir": read_only}, env=KDAT)
    work = tmp_path / "work"
    work.mkdir()
    with killed(criu.restore_child({"images_dir": read_only, "work_dir": work}, env=KDAT)):
        pass


def test_a_missing_capability_is_explained(account: Account, directory_of: Callable[[Account], Path]) -> None:
    """An ordinary user without capabilities is told which one criu lacks."""
    directory = directory_of(account)
    become = "" if account.is_self else f"os.setgroups([]); os.setgid({account.gid}); os.setuid({account.uid})\n"
    with Target(become + WAIT, cwd=directory) as target:
        options = {"images_dir": str(directory), "pid": target.pid, "unprivileged": True}
        code = f"from libcriu_py.criu.client import Criu\nCriu().dump({options})"
        told = str(run_as(account, [account.python, "-c", code], cwd=directory).stderr)
    assert "OperationRefused" in told, told
    assert "CAP_CHECKPOINT_RESTORE" in told
