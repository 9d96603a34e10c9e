"""Messages between launcher, supervisor and program."""

from __future__ import annotations

import os
import socket

import pytest

from libcriu_py._ffi import ffi
from libcriu_py.linux import support


def test_what_was_said_before_the_end_is_heard() -> None:
    """
    The kernel first tells that the other end was closed with something unread.

    So it is where a supervisor's program ends before that has heard that the copy was taken from its pool.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    event = ffi.new("struct lcp_event *", {"kind": 4, "value": 3 << 8})
    with ours:
        ours.send(b"G")
        theirs.send(bytes(ffi.buffer(event)))
        theirs.close()
        heard = support.next_event(ours.fileno(), 1)
        assert heard is not None
        assert (heard.kind, os.waitstatus_to_exitcode(heard.value)) == (4, 3)
        with pytest.raises(BrokenPipeError):
            support.next_event(ours.fileno(), 1)
