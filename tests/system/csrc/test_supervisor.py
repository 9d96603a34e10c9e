"""The supervisor ends all that a copy has started when nobody is left who would take the copy."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.linux import supervision
from libcriu_py.linux.ffi import ffi, lib

if TYPE_CHECKING:
    from pathlib import Path

# Its children are more than one read of /proc/PID/task/TID/children returns, which is a page, however short pids are.
PARENT = """
import os, signal, sys
pipe = os.open(sys.argv[1], os.O_WRONLY)
children = size = 0
while children < 700 or size < 5000:
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    children += 1
    size += len(f"{pid} ")
os.write(pipe, b"ready")
signal.pause()
"""
TIMEOUT = 30


def is_readable(pipe: int) -> bool:
    """Wait until there is something to read, or nobody is left who could write."""
    return bool(select.select([pipe], [], [], TIMEOUT)[0])


def test_all_of_many_children_end(tmp_path: Path) -> None:
    """A standby program that nobody took ends with each of more children than one read tells of."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    words = [ffi.new("char[]", os.fsencode(word)) for word in (sys.executable, "-I", "-S", "-c", PARENT, fifo)]
    argv, env = ffi.new("char *[]", [*words, ffi.NULL]), ffi.new("char *[]", [ffi.NULL])
    job: Any = ffi.new("struct lcp_job *")
    channel_out = ffi.new("int *")
    job.argv, job.env = argv, env
    job.flags = lib.LCP_DIE_WITH_CALLER | lib.LCP_STANDBY
    assert lib.lcp_supervise(job, channel_out) == 0
    channel = int(channel_out[0])
    news, supervisor = supervision.await_start(channel)
    try:
        assert news.kind == lib.LCP_EVENT_STARTED
        assert news.pidfd is not None
        os.close(news.pidfd)
        with open(fifo, "rb", buffering=0) as pipe:
            assert is_readable(pipe.fileno())
            assert pipe.read(5) == b"ready"
            os.close(channel)
            assert is_readable(pipe.fileno()), "children of the program are left"
            assert pipe.read(5) == b""
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(supervisor, signal.SIGKILL)
        supervision.reap(supervisor, wait=True)
