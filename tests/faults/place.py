"""A place for one case: pid, mount, /tmp and /dev/shm of its own, in which whatever is left afterwards is a leak."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.faults.verdict import Judgement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LIMIT = "3"
"""Seconds that criu is given, for each GB."""
_CASE = 10
"""A case may take so many times as long as one command."""
_GRACE = 3.0
"""Seconds in which processes may end by themselves once a command is through."""
_NEW_NAMESPACES = 0x20000 | 0x20000000  # CLONE_NEWNS | CLONE_NEWPID
_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
_BIND, _REMOUNT = 0x1000, 0x20
_DEATHSIG = 1
_CACHES = ("kdat-", "locks", "namespaces-", "sound-", "start-")
_SHM, _TMP = Path("/dev/shm"), Path("/tmp")
_libc = ctypes.CDLL(None, use_errno=True)


class Ran(NamedTuple):
    """What came of a command; `hung` has the processes that were there at its deadline."""

    status: int
    out: str
    err: str
    hung: str = ""


class Place:
    """
    Where a case runs, as pid 1.

    Attributes:
        base: The directory that all cases share, and only read.
        directory: An empty one of this case.
        deadline: Seconds after which a command has hung.
    """

    def __init__(self, base: Path, deadline: float) -> None:
        self.base = base
        self.deadline = deadline
        self.directory = _TMP / "case"

    def enter(self) -> None:
        """Mount what this place has of its own; the caches on /dev/shm are those of a machine in use."""
        mount("none", "/", "", _PRIVATE)
        mount("proc", "/proc", "proc")
        for path in (_SHM, _TMP):
            mount("tmpfs", str(path), "tmpfs", data="mode=1777,size=2g")
        if (self.base / "shm").exists():
            shutil.copytree(self.base / "shm", _SHM, dirs_exist_ok=True)
        self.directory.mkdir()
        os.chdir("/")
        self._mounts = _mounts()

    def run(
        self,
        argv: Sequence[object],
        *,
        env: Mapping[str, str] | None = None,
        during: Callable[[subprocess.Popen[str]], None] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Ran:
        """
        Run a command to its end or its deadline, and cause a fault meanwhile.

        Args:
            argv: The command.
            env: Variables besides those that all cases have.
            during: Called when it runs.
            prepare: Called in the child before that.
        """
        process = subprocess.Popen(
            [*map(str, argv)],
            env={**os.environ, "LIBCRIU_PY_CRIU_LIMIT": LIMIT, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=prepare,
        )
        deadline = time.monotonic() + self.deadline
        if during is not None:
            during(process)
        try:
            out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            seen = "; ".join(f"{pid} {state} {command}" for pid, (state, command) in sorted(processes().items()))
            self.end_all()
            process.communicate()
            return Ran(process.returncode, "", "", seen or "nothing runs, but its pipes are open")
        return Ran(process.returncode, out, err)

    def bind(self, source: Path, target: Path) -> None:
        """Have a directory in the place of another."""
        mount(str(source), str(target), flags=_BIND)
        self._mounts.add(str(target))

    def mount_disk(self, size: int) -> Path:
        """Mount a file system of so many bytes, and return where; a second call changes its size."""
        disk = self.directory / "disk"
        disk.mkdir(exist_ok=True)
        mount("tmpfs", str(disk), "tmpfs", _REMOUNT if str(disk) in self._mounts else 0, f"size={size}")
        self._mounts.add(str(disk))
        return disk

    def end_all(self) -> None:
        """Kill every process of this place."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)

    def leaks(self) -> list[str]:
        """Return what is left of the commands after a while: processes, files, mounts."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGCONT)  # a helper that was stopped can end now
        deadline = time.monotonic() + _GRACE
        while left := self._left():
            if time.monotonic() > deadline:
                break
            time.sleep(0.01)
        return left

    def _left(self) -> list[str]:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        left = [f"process {state} {command}" for state, command in processes().values()]
        own = [path for path in _SHM.iterdir() if not path.name.startswith("libcriu_py-")]
        for directory in _SHM.glob("libcriu_py-*"):
            own += [path for path in directory.iterdir() if not path.name.startswith(_CACHES)]
        own += [path for path in _TMP.iterdir() if path != self.directory]
        own += [*self.directory.glob("*.new-*"), *self.directory.glob("*/*.new-*")]
        return left + [f"file {path}" for path in own] + [f"mount {path}" for path in _mounts() - self._mounts]


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """
    Mount a file system.

    Raises:
        OSError: The kernel refuses.
    """
    if _libc.mount(source.encode(), os.fsencode(target), kind.encode(), flags, data.encode()):
        number = ctypes.get_errno()
        raise OSError(number, f"{target}: {os.strerror(number)}")


def processes() -> dict[int, tuple[str, str]]:
    """Return state and command line of all processes but this one."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            state = Path("/proc", name, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            comm = Path("/proc", name, "comm").read_text(encoding="utf-8", errors="replace").strip()
            command = Path("/proc", name, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if state[0] != "Z" and comm != "strace":
                found[int(name)] = (state[0], f"({comm}) {command.strip()[:120]}")
    return found


def _mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()}


class Started:
    """A case that runs: `result` waits for it, and ends it at its deadline."""

    def __init__(self, base: Path, case: Callable[[Place], Judgement], *, deadline: float = 60.0) -> None:
        """
        Start a case.

        Args:
            base: The directory that all cases share.
            case: What runs in a place of its own, and judges.
            deadline: Seconds that each command in it may take.
        """
        self._reads, writes = os.pipe()
        self._deadline = time.monotonic() + _CASE * deadline
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._reads)
            _run_apart(Place(base, deadline), case, writes)
        os.close(writes)

    def fileno(self) -> int:
        """Return what is readable when the case is through."""
        return self._reads

    def is_late(self) -> bool:
        """Return whether its deadline is over."""
        return time.monotonic() > self._deadline

    def wait(self) -> Judgement:
        """Wait for its end, and return the judgement."""
        select.select([self], [], [], max(0.0, self._deadline - time.monotonic()))
        return self.result()

    def result(self) -> Judgement:
        """Return the judgement; a case without one has hung."""
        text = b""
        if select.select([self], [], [], 0)[0]:
            with open(self._reads, "rb", closefd=False) as file:
                text = file.read()
        os.close(self._reads)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        if not text:
            return Judgement(Verdict.HANG, "the case did not end")
        told: dict[str, Any] = json.loads(text)
        return Judgement(Verdict(told["verdict"]), told["detail"])


def _run_apart(place: Place, case: Callable[[Place], Judgement], writes: int) -> None:
    """Run a case as pid 1 of namespaces of its own, and write its judgement."""
    try:
        _libc.prctl(_DEATHSIG, signal.SIGKILL)
        if _libc.unshare(_NEW_NAMESPACES):
            os._exit(1)
        child = os.fork()
        if child:
            os.close(writes)
            os.waitpid(child, 0)
            os._exit(0)
        _libc.prctl(_DEATHSIG, signal.SIGKILL)
        place.enter()
        judgement = case(place)
        left = place.leaks()
        if left and judgement.verdict not in {Verdict.HANG, Verdict.WRONG, Verdict.CRASH}:
            judgement = Judgement(Verdict.LEAK, "; ".join(left))
    except BaseException:  # noqa: BLE001 - the case itself is broken, which must be seen
        judgement = Judgement(Verdict.BROKEN, traceback.format_exc())
    os.write(writes, json.dumps({"verdict": judgement.verdict.value, "detail": judgement.detail}).encode())
    os._exit(0)
