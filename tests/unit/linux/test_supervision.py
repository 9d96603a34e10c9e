"""Messages between launcher, supervisor and program."""

from __future__ import annotations

import os
import socket

import pytest

from libcriu_py.linux import supervision
from libcriu_py.linux.ffi import ffi


def test_events_from_before_the_end_are_read() -> None:
    """
    The kernel reports that the other end was closed, with a message unread, before it delivers what is queued.

    This happens when a supervisor's program ends before the supervisor has read that the copy was taken from its pool.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    event = ffi.new("struct lcp_event *", {"kind": 4, "value": 3 << 8})
    with ours:
        ours.send(b"G")
        theirs.send(bytes(ffi.buffer(event)))
        theirs.close()
        event_read = supervision.next_event(ours.fileno(), 1)
        assert event_read is not None
        assert (event_read.kind, os.waitstatus_to_exitcode(event_read.value)) == (4, 3)
        with pytest.raises(BrokenPipeError):
            supervision.next_event(ours.fileno(), 1)
