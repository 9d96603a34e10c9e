"""What this process changes about itself through C: scheduling, signals, session, environment, exit (csrc/copy)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

from libcriu_py.linux.ffi import checked, ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Resolve these at import: cffi's first lookup allocates, in each copy.
_three, _get_schedule, _replace_environ = ffi.new("int[3]"), lib.lcp_get_schedule, lib.lcp_replace_environ


def schedule(task: int = 0) -> tuple[int, int, int] | None:
    """Return niceness, scheduling policy and priority of a thread, 0 for the calling one; None if it is gone."""
    if _get_schedule(task, _three):
        return None
    return _three[0], _three[1], _three[2]


def set_schedule(task: int, values: Sequence[int]) -> None:
    """Set niceness, scheduling policy and priority of a thread, as far as that is permitted."""
    lib.lcp_set_schedule(task, list(values))


def ignore_signal(number: int) -> None:
    """Ignore a signal, from any thread; `signal.getsignal` does not notice."""
    checked(lib.lcp_ignore_signal(number))


def suspend_timers() -> bool:
    """Disarm the timers that send signals, and return whether there are any; `resume_timers` arms them again."""
    return lib.lcp_suspend_timers() > 0


def resume_timers(*, in_copy: bool) -> None:
    """Arm them with the time that is left of them: in a copy, what was left when they were suspended."""
    lib.lcp_resume_timers(in_copy)


def lead_session() -> None:
    """Start a new session, even as the leader of a process group."""
    checked(lib.lcp_lead_session())


def set_flag(name: str, value: int) -> None:
    """Set an item of `sys.flags`, for those too that hold on to it."""
    flags: Any = sys.flags
    lib.lcp_set_flag(ffi.cast("void *", id(flags)), flags.__match_args__.index(name), value)


def trim_heap() -> None:
    """Return free memory of the C heap to the kernel."""
    lib.lcp_trim_heap()


def replace_environ(env: Mapping[bytes, bytes]) -> None:
    """Replace the C environment of this process."""
    block = b"\0".join([*map(b"=".join, env.items()), b""])
    checked(_replace_environ(block, len(block)))


def standby_description(mode: str) -> bytes:
    """Return what a copy in this mode would have to inherit from this process, as lines of text."""
    text = ffi.new("char[]", 65536)
    size = checked(lib.lcp_standby_describe(mode.encode(), text, 65536))
    return bytes(ffi.buffer(text, size))


def exit_now(status: int) -> NoReturn:
    """Flush the C streams and end at once."""
    lib.lcp_exit_now(status)


def end_at_exit() -> None:
    """Make C's exit(STATUS) do what `exit_now` does."""
    checked(lib.lcp_end_at_exit())
