"""The dump of a process by itself, without criu: what it collects, and what becomes of a refusal."""

from __future__ import annotations

import errno
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from libcriu_py import findings
from libcriu_py.dump.engine import SnapshotEngine, load_for_copies
from libcriu_py.errors import CheckpointError, UnsupportedFeature
from libcriu_py.hooks.lifecycle import Outcome, Return
from libcriu_py.linux import native

if TYPE_CHECKING:
    from libcriu_py.dump.native_arrival import NativeHandover
    from libcriu_py.linux.native import Dumped, Files
    from libcriu_py.snapshot.record import Launch
    from libcriu_py.snapshot.staging import Staging

_PATIENCE = 600.0
"""Seconds that the publisher may take, who compares all memory."""
_REFUSED, _FAILED, _REFUSED_NOW = 10, 11, 12
"""Exit statuses of the publisher (native/publish.py)."""
_PAUSES = (0.001, 0.01, 0.1)
"""Seconds to wait before a dump is tried again, where a thread held a lock for a moment or a signal was pending."""
_LARGEST_RESULT = 4096
_THREAD_ERRORS = (errno.EAGAIN, errno.ETIMEDOUT)
OURS = "clock dump.native_arrival linux.clocks linux.native linux.this_process"


class NotEligible(UnsupportedFeature):
    """
    The native engine cannot dump this process.

    Attributes:
        reason: What it has, as a predicate: "has a child process (sh, pid 7)".
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(
            f"the native engine cannot dump this process: it {reason}; put that right before the dump, "
            'or use engine="criu"'
        )


class NotNow(NotEligible):
    """The native engine cannot dump this process at this moment."""


class NativeEngine(SnapshotEngine):
    """
    The dump of this process by itself.

    Thread safety: one dump at a time; other threads stand still wherever they are.
    """

    name = "native"

    def prepare(self) -> None:
        """
        Check that this machine has the engine, and reserve the directory.

        Raises:
            NotEligible: This process cannot be dumped.
            FileExistsError: The directory is not empty.
        """
        refuse_machine()
        self._is_trial = findings.is_report_wanted()
        load_for_copies(OURS)
        self.reserve()

    def take(self) -> Return:
        """
        Dump this process.

        Raises:
            NotEligible: Something in the process is not for this engine.
            CheckpointError: The dump failed; the process is as it was.
        """
        from libcriu_py import clock
        from libcriu_py.dump import stdio
        from libcriu_py.dump.native_arrival import NativeHandover
        from libcriu_py.linux.clocks import Clocks

        staging = self._reserved()
        launch, order = self._make_ready(staging)
        dumped_at = time.time()
        clocks = Clocks() if clock.continues() else None
        self._kept = (launch, order)
        self._handover = NativeHandover(launch.command)
        try:
            if self._ask(staging, order, self._handover, 0 if clocks is None else clocks.reading):
                if clocks is not None and not self._handover.is_over():
                    clocks.go_on()
                return self._handover.receive(dumped_at, before_start=stdio.reopen)
        except BaseException:
            if self._handover.in_copy():
                # A signal handler of the program has raised, as for Ctrl-C: the program must not start again.
                self._handover.report_started()
            raise
        finally:
            if not self._handover.in_copy():
                self._handover.close()
                if clocks is not None:
                    clocks.put_back()
        if self._is_trial:
            findings.show_native_and_end(self._options)
        return Return(Outcome.CONTINUED)

    # Code that only the original runs has functions of its own, so that copies need not free its variables.

    def _make_ready(self, staging: Staging) -> tuple[Launch, bytes]:
        """Refuse what can be seen from here, and collect launch record, manifest and the order to the publisher."""
        from libcriu_py.linux import this_process
        from libcriu_py.snapshot.manifest import mapped_files

        if not self._is_trial:
            findings.refuse(self._options, by_criu=False)
        refuse_process()
        this_process.trim_heap()
        launch = self._launch(mode=None, slots=("",) * 4, images_key="", restore_options={})
        launch = self._with_modules(launch._replace(mapped=mapped_files([os.getpid()], without=[staging.path])))
        self._take_census()
        return launch, self._order(staging, launch)

    def _order(self, staging: Staging, launch: Launch) -> bytes:
        """Return what the publisher is to do, in JSON."""
        import base64
        import json

        from libcriu_py.dump import changes
        from libcriu_py.snapshot import record

        facts = {**self._facts(), "created": time.time()}
        order = {
            "version": 1,
            "trial": self._is_trial,
            "staging": staging.path,
            "target": staging.target,
            "launch": base64.b64encode(record.encode(launch)).decode("ascii"),
            "manifest": facts,
            "memory": self._memory,
            "census": self._census,
            "inherited": changes.inherited(),
            "program": self.ends_original and self._program is None,
        }
        return json.dumps(order).encode("ascii")

    def _ask(self, staging: Staging, order: bytes, handover: NativeHandover, reading: int) -> bool:
        """Dump, and return whether this is a copy."""
        for pause in _PAUSES:
            try:
                return self._ask_once(staging, order, handover, reading)
            except NotNow:
                if not self._is_trial:
                    os.unlink(staging.memory)
                time.sleep(pause)
        return self._ask_once(staging, order, handover, reading)

    def _ask_once(self, staging: Staging, order: bytes, handover: NativeHandover, reading: int) -> bool:
        """Dump, and return whether this is a copy, which has none of the descriptors that are opened here."""
        files, opened = _open_files(staging, order, handover.slot, is_trial=self._is_trial)
        try:
            handover.expect(self.departure, reading=reading)
            dumped = native.dump(
                files,
                publisher(),
                os.environ,
                then_exit=self.ends_original and not self._is_trial,
                is_trial=self._is_trial,
                deadline=_PATIENCE,
            )
            if dumped.result == 1:
                opened.clear()
                return True
            if dumped.result < 0:
                _raise(dumped, files.result)
            return False
        finally:
            # A signal handler may have raised right after the return in a copy.
            if opened and not self._in_copy():
                for fd in opened:
                    os.close(fd)

    def _in_copy(self) -> bool:
        return self._handover is not None and self._handover.in_copy()


def _open_files(staging: Staging, order: bytes, slot: int, *, is_trial: bool) -> tuple[Files, list[int]]:
    """Open the files of a dump; return them, and the descriptors to close."""
    from libcriu_py.linux.native import Files

    opened = [os.memfd_create(f"libcriu_py-{name}", os.MFD_CLOEXEC) for name in ("order", "facts", "result")]
    try:
        os.write(opened[0], order)
        os.lseek(opened[0], 0, os.SEEK_SET)
        path, flags = (os.devnull, os.O_WRONLY) if is_trial else (staging.memory, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        opened.append(os.open(path, flags | os.O_CLOEXEC, 0o600))
        opened.append(os.open(staging.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except BaseException:
        for fd in opened:
            os.close(fd)
        raise
    order_fd, facts, result, memory, directory = opened
    return Files(order_fd, facts, memory, result, directory, slot), opened


def publisher() -> list[str]:
    """Return the command of the publisher: this interpreter, without what belongs to the program."""
    import _cffi_backend

    import libcriu_py

    paths = [os.path.dirname(path) for path in (libcriu_py.__path__[0], os.path.abspath(_cffi_backend.__file__))]
    code = f"import sys; sys.path += {paths!r}; from libcriu_py.native.publish import main; main()"
    return [sys.executable, "-I", "-S", "-B", "-c", code]


def _raise(dumped: Dumped, result: int) -> NoReturn:
    """Raise what a dump that failed comes to."""
    number = -dumped.result
    if number in _THREAD_ERRORS:
        raise NotEligible(f"has a thread that does not stop ({_name_of(dumped.failed_thread)})")
    sentence = os.pread(result, _LARGEST_RESULT, 0).decode("utf-8", "replace").strip()
    if number == errno.ECHILD and dumped.status in {_REFUSED, _REFUSED_NOW}:
        kind = NotNow if dumped.status == _REFUSED_NOW else NotEligible
        raise kind(sentence or "has something that is not known")
    if number == errno.ENOTSUP:
        raise NotEligible(sentence or "runs on a machine, or with a C library, that this engine does not know")
    if number == errno.ECHILD and dumped.status == _FAILED and sentence:
        message = f"the native dump failed: {sentence}"
    elif number == errno.ECHILD:
        message = f"the native dump failed: the process that publishes it ended with status {dumped.status}"
    elif number == errno.ETIME:
        message = f"the native dump failed: publishing it took longer than {_PATIENCE:.0f} seconds"
    elif number == errno.ENOSPC:
        message = "the native dump failed: the disk is full"
    else:
        message = f"the native dump failed: {os.strerror(number)}"
    if os.strerror(errno.ENOSPC) in message:
        message += ": the disk is full; make room, or name another directory"
    raise CheckpointError(message)


def _name_of(thread: int) -> str:
    from libcriu_py.linux.files import read_small

    name = (read_small(f"/proc/self/task/{thread}/comm") or b"?").strip().decode("utf-8", "replace")
    return f"{name}, thread {thread}"


def refuse_machine() -> None:
    """
    Refuse machines and C libraries that the engine does not know.

    Raises:
        NotEligible: This is one.
    """
    machine = os.uname().machine
    if machine != "x86_64" or sys.maxsize < 1 << 32:
        raise NotEligible(f"runs on {machine}, and this engine is for x86-64")
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        libc = None
    if not libc:
        raise NotEligible("has another C library than glibc")


def refuse_process() -> None:
    """
    Refuse what can be seen of this process without stopping it.

    Raises:
        NotEligible: There is such a thing.
    """
    from libcriu_py.dump import changes
    from libcriu_py.linux import processes
    from libcriu_py.linux.files import status

    children = processes.processes()[1:]
    if children:
        name = status(children[0]).get("Name", "?")
        raise NotEligible(f"has a child process ({name}, pid {children[0]})")
    changed = changes.found()
    if changed:
        raise NotEligible(f"has changed its {changed} since it was started, and copies begin with the caller's")
