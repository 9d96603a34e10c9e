"""Unix sockets: this user's abstract ones, and passing descriptors (csrc/common)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py.linux.ffi import checked, ffi, lib, text

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FDS = 250
"""Descriptors that fit in one message (SCM_MAX_FD of the kernel is 253)."""

# Resolve these at import: cffi's first lookup allocates, in each copy. One buffer is enough: only one thread receives.
_tag, _fds, _unpack = ffi.new("char[1]"), ffi.new("int[]", MAX_FDS), ffi.unpack
_receive, _send = lib.lcp_receive_tagged, lib.lcp_send


def connect(name: str) -> int:
    """Connect to an abstract socket of this user by name."""
    return checked(lib.lcp_connect(name.encode("ascii")))


def random_name() -> str:
    """Return an unguessable name for an abstract socket."""
    name = ffi.new("char[]", 108)
    checked(lib.lcp_random_name(name, 108))
    return text(name)


def standby_name(manifest: str) -> str:
    """
    Return the name of the socket on which the standby copies of a snapshot wait.

    Args:
        manifest: The path of its manifest.

    Raises:
        OSError: The manifest cannot be read.
    """
    name = ffi.new("char[]", 80)
    checked(lib.lcp_standby_name(os.fsencode(manifest), name, 80))
    return text(name)


def socketpair() -> tuple[int, int]:
    """Return a pair of connected SOCK_SEQPACKET sockets, closed on exec."""
    pair = ffi.new("int[2]")
    checked(lib.lcp_socketpair(pair))
    return int(pair[0]), int(pair[1])


def send_fds(sock: int, fds: Sequence[int], tag: bytes = b"F") -> None:
    """Send descriptors in one message, with a byte that says what they are."""
    checked(lib.lcp_send_tagged(sock, tag, list(fds), len(fds)))


def receive_fds(sock: int) -> tuple[bytes, list[int]]:
    """Receive a message of `send_fds`: its byte and the descriptors."""
    count = checked(_receive(sock, _tag, _fds, MAX_FDS))
    return bytes(_tag[0]), _unpack(_fds, count)  # type: ignore[return-value]


def send(sock: int, data: bytes) -> None:
    """Send one message; raise BrokenPipeError, without SIGPIPE, if the other end is closed."""
    checked(_send(sock, data, len(data)))


def keep_fds(fds: Sequence[int]) -> str:
    """Hold descriptors open in a process outside this one's tree; `take_fds` gets them back by the name returned."""
    name = ffi.new("char[]", 108)
    keeper = ffi.new("int *")
    checked(lib.lcp_store_fds(list(fds), len(fds), name, 108, keeper))
    return text(name)


def take_fds(name: str, count: int) -> list[int]:
    """Get back the descriptors that `keep_fds` holds under a name; the holding process ends."""
    fds = ffi.new("int[]", max(1, count))
    got = checked(lib.lcp_fetch_stored_fds(name.encode("ascii"), fds, count))
    return list(fds)[:got]
