"""The dump of a process by itself, without criu (csrc/native)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.linux.ffi import checked, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Sequence

    from libcriu_py._libcriu import CData


# Resolve these at import: cffi's first lookup allocates, in each copy.
_set_arguments, _dumped_pid, _new_tid = (
    lib.lcp_native_set_arguments,
    lib.lcp_native_dumped_pid,
    lib.lcp_native_new_tid,
)


class Files(NamedTuple):
    """The descriptors of a native dump that the publisher has too."""

    order: int
    """What the publisher has to do."""
    facts: int
    """A file for what is known of the process."""
    result: int
    """A file for the publisher's sentence, where it refuses."""
    staging: int
    """The directory to fill."""
    stages: tuple[int, int]
    """A pipe that tells the publisher how far the dump is, which the dump closes."""


class Dumped(NamedTuple):
    """How a native dump ended."""

    result: int
    """1 in a copy, 0 in the original; else a negative errno."""
    status: int
    """The exit status of the publisher."""
    failed_thread: int
    """The thread that could not be stopped; 0 if there is none."""
    parked_ns: int
    stood_ns: int
    """How long the other threads stood still."""


def start(files: Files, command: Sequence[str]) -> CData:
    """
    Start a publisher, which nobody else can wait for, and which may take as long as a criu from the dump on.

    Args:
        files: The files.
        command: Its command.

    Raises:
        OSError: It cannot be started.
    """
    words = [ffi.new("char[]", os.fsencode(word)) for word in command]
    argv = ffi.new("char *[]", [*words, ffi.NULL])
    wanted = {**files._asdict(), "deadline_ms": lib.lcp_dump_limit(os.getpid()), "argv": argv}
    native: Any = ffi.new("struct lcp_native *", wanted)
    checked(lib.lcp_native_start(native))
    return native


def publisher_of(native: CData) -> tuple[int, int]:
    """Return the pids of the publisher and of its parent."""
    return native.publisher, native.keeper


def stop(native: CData) -> None:
    """End the publisher if it runs still, and give back what it needed."""
    lib.lcp_native_stop(native)


def dump(native: CData, memory: int, slot: int, *, then_exit: bool, is_trial: bool) -> Dumped:
    """
    Dump this process.

    Args:
        native: What `start` returned.
        memory: A file for its memory.
        slot: The descriptor that a copy reads its request from.
        then_exit: Whether this process ends, with status 0, once the snapshot is published.
        is_trial: Whether there is to be no snapshot, only the answer whether there could be one.

    Returns:
        In a copy, and in the original where it goes on.
    """
    native.memory, native.slot, native.then_exit, native.is_trial = memory, slot, then_exit, is_trial
    result = lib.lcp_native_dump(native)
    status = native.status
    return Dumped(result, os.waitstatus_to_exitcode(status), native.failed_thread, native.parked_ns, native.stood_ns)


def dumped_pid() -> int:
    """Return the pid that this process, or that of which it is a copy, had at its native dump; 0 without one."""
    return int(_dumped_pid())


def renew_pids(addresses: Sequence[int]) -> None:
    """Have the pid put at these addresses in copies, before any thread of theirs goes on; none is left from before."""
    places = ffi.new("int *[]", [ffi.cast("int *", address) for address in addresses])
    lib.lcp_native_renew_pids(places, len(addresses))
    _kept[:] = [places]


_kept: list[object] = []


def new_tid(tid: int) -> int:
    """Return the id, in a copy, of the thread that had this one at the dump; 0 if there was none."""
    return int(_new_tid(tid))


def show_arguments() -> CData:
    """Return the C function behind `set_arguments`."""
    return ffi.addressof(lib, "lcp_native_set_arguments")  # type: ignore[arg-type]


def set_arguments(words: bytes) -> None:
    """Show a command line, of words with a NUL behind each, in ``ps`` and ``/proc/self/cmdline`` of a native copy."""
    _set_arguments(words, len(words))
