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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py.dump.native_arrival import NativeHandover
    from libcriu_py.dump.publishing import Publisher
    from libcriu_py.linux.native import Dumped
    from libcriu_py.snapshot.record import Launch
    from libcriu_py.snapshot.sources import Loaded
    from libcriu_py.snapshot.staging import Staging

_REFUSED, _FAILED, _REFUSED_NOW = 10, 11, 12
"""Exit statuses of the publisher (native/publish.py)."""
_PAUSES = (0.001, 0.01, 0.1)
"""Seconds to wait before a dump is tried again, where a thread held a lock for a moment or a signal was pending."""
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

    _publisher: Publisher | None = None

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

    def begin(self) -> None:
        """Start the publisher, which makes itself ready while the hooks run."""
        # A report about this process is not to have one of ours in it.
        if not self._is_trial:
            self._started()

    def abandon(self) -> None:
        """Remove the directory, and end the publisher; an interrupted copy leaves the snapshot alone."""
        self._forget_publisher()
        super().abandon()

    def hand_to(self, other: SnapshotEngine) -> None:
        """Let another engine dump into the directory that this one has reserved."""
        self._forget_publisher()
        super().hand_to(other)

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
        self._handover = NativeHandover(launch.command, self._started().descriptors, high=self._is_interpreter())
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

        if not self._is_trial:
            findings.refuse(self._options, by_criu=False)
        refuse_process(self._started().pids)
        this_process.trim_heap()
        launch = self._launch(mode=None, slots=("",) * 4, images_key="", restore_options={})
        loaded = self._loaded()
        launch = self._with_sources(launch, loaded)
        self._take_census()
        return launch, self._order(staging, launch, loaded)

    def _order(self, staging: Staging, launch: Launch, loaded: Loaded) -> bytes:
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
            "loaded": loaded,
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
        """Dump, and return whether this is a copy."""
        started = self._started()
        try:
            started.order(order)
            handover.expect(self.departure, reading=reading)
            memory = None if self._is_trial else staging.memory
            dumped = started.dump(memory, handover.slot, then_exit=self.ends_original and not self._is_trial)
            if dumped.result == 1:
                self._kept = (self._kept, started)  # kept alive: freeing it would write to shared pages
                self._publisher = None
                return True
            if dumped.result < 0:
                _raise(dumped, started.sentence())
            return False
        finally:
            self._forget_publisher()

    def _started(self) -> Publisher:
        """Return the publisher, which is started if there is none."""
        from libcriu_py.dump.publishing import Publisher

        if self._publisher is None:
            try:
                self._publisher = Publisher(publisher(), self._reserved().path)
            except OSError as error:
                message = f"the native dump failed: the process that publishes it cannot be started: {error.strerror}"
                raise CheckpointError(message) from error
        return self._publisher

    def _forget_publisher(self) -> None:
        """End the publisher; a copy has none."""
        # A signal handler may have raised right after the return in a copy.
        if self._publisher is not None and not self._in_copy():
            self._publisher.end()
            self._publisher = None

    def _in_copy(self) -> bool:
        return self._handover is not None and self._handover.in_copy()


def publisher() -> list[str]:
    """Return the command of the publisher: this interpreter, without what belongs to the program."""
    import _cffi_backend

    import libcriu_py

    paths = [os.path.dirname(path) for path in (libcriu_py.__path__[0], os.path.abspath(_cffi_backend.__file__))]
    code = f"import gc, sys; gc.disable(); sys.path += {paths!r}; from libcriu_py.native.publish import main; main()"
    return [sys.executable, "-I", "-S", "-B", "-c", code]


def _raise(dumped: Dumped, sentence: str) -> NoReturn:
    """Raise what a dump that failed comes to."""
    number = -dumped.result
    if number in _THREAD_ERRORS:
        raise NotEligible(f"has a thread that does not stop ({_name_of(dumped.failed_thread)})")
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
        message = "the native dump failed: publishing it took longer than LIBCRIU_PY_CRIU_LIMIT allows"
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


def refuse_process(without: Sequence[int]) -> None:
    """
    Refuse what can be seen of this process without stopping it.

    Args:
        without: Processes that do not count.

    Raises:
        NotEligible: There is such a thing.
    """
    from libcriu_py.dump import changes
    from libcriu_py.linux import processes
    from libcriu_py.linux.files import status

    children = [pid for pid in processes.processes()[1:] if pid not in without]
    if children:
        name = status(children[0]).get("Name", "?")
        raise NotEligible(f"has a child process ({name}, pid {children[0]})")
    changed = changes.found()
    if changed:
        raise NotEligible(f"has changed its {changed} since it was started, and copies begin with the caller's")
