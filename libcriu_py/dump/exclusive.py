"""What one copy at a time can have, as criu has written it (images/sk-inet.proto, sk-unix.proto, sk-opts.proto)."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images import framing
from libcriu_py.linux.files import read_small
from libcriu_py.snapshot.record import ONLY_IPV6, REUSE_ADDRESS, REUSE_PORT, Listener

if TYPE_CHECKING:
    from libcriu_py.images.codec import Message

_INET, _UNIX = 4, 5
_INET_FIELD, _UNIX_FIELD = 4, 16
_SOURCE_PORT, _PEER_PORT = 7, 8
_CLOSED, _LISTEN = 7, 10
_NOT_OURS = 0xF
"""Flags of UNIX sockets that another process has, or that criu is given (criu/include/sk-unix.h, USK_EXTERN...)."""


class Exclusive(NamedTuple):
    """What one copy at a time can have; fields as in `Launch`."""

    listeners: tuple[Listener, ...]
    one_at_a_time: bool


def find(images: str) -> Exclusive:
    """
    Return what copies must take turns with.

    Args:
        images: The directory of the images.

    Raises:
        ImageError: The images are damaged.
    """
    found: set[Listener] = set()
    for entry in framing.read(_files(images), "files"):
        kind, listener = entry.number(1, 0), None
        if kind == _INET:
            listener = _internet(entry.message(_INET_FIELD))
        elif kind == _UNIX:
            listener = _unix(entry.message(_UNIX_FIELD))
        if listener is not None:
            found.add(listener)
    # In one order for all snapshots: restores wait for each other's locks.
    listeners = tuple(sorted(found, key=lambda row: (row.port, row.address, row)))
    # criu makes deleted files again for a moment, under names that are the same in each restore.
    ghosts = any(name.startswith(("ghost-file-", "remap-fpath")) for name in os.listdir(images))
    return Exclusive(listeners, ghosts)


def give_own_ports(images: str) -> None:
    """
    Have the kernel choose a port for each connected UDP socket of a copy, as it did for the program's.

    Args:
        images: The directory of the images to change.

    Raises:
        ImageError: The images are damaged.
    """
    path, changed = _files(images), False
    first, last = map(int, (read_small("/proc/sys/net/ipv4/ip_local_port_range") or b"1 0").split())
    entries = framing.read(path, "files")
    for entry in entries:
        if entry.number(1, 0) != _INET:
            continue
        sock = entry.message(_INET_FIELD)
        is_client = sock.number(4, 0) == socket.SOCK_DGRAM and sock.number(_PEER_PORT, 0)
        if is_client and first <= sock.number(_SOURCE_PORT, 0) <= last:
            sock.set(_SOURCE_PORT, 0)
            entry.set(_INET_FIELD, sock.encode())
            changed = True
    if changed:
        framing.write(f"{path}.new", "files", entries)
        os.rename(f"{path}.new", path)


def _files(images: str) -> str:
    return os.path.join(images, "files.img")


def _internet(entry: Message) -> Listener | None:
    family, kind, port = entry.number(3, 0), entry.number(4, 0), entry.number(_SOURCE_PORT, 0)
    size = 4 if family == socket.AF_INET else 16
    raw = b"".join(word.to_bytes(4, sys.byteorder) for word in entry.numbers(11))
    connected = entry.number(_PEER_PORT, 0) or entry.number(6, 0) not in {_CLOSED, _LISTEN}
    # Connections of TCP are refused, or closed in copies.
    if not port or len(raw) < size or (kind != socket.SOCK_DGRAM and (kind != socket.SOCK_STREAM or connected)):
        return None
    options = entry.message(14)
    bits = (
        REUSE_ADDRESS * bool(options.number(7, 0))
        | REUSE_PORT * bool(options.number(17, 0))
        | ONLY_IPV6 * bool(entry.number(15, 0))
    )
    return Listener(socket.inet_ntop(family, raw[:size]), family, kind, port, bits)


def _unix(entry: Message) -> Listener | None:
    name, kind = entry.text(11).rstrip("\0"), entry.number(3, 0)
    has_address = entry.number(4, 0) == _LISTEN or kind == socket.SOCK_DGRAM
    is_deleted = entry.number(15, 0)
    if not name or "\0" in name[1:] or is_deleted or entry.number(6, 0) & _NOT_OURS or not has_address:
        return None
    address = os.path.join(entry.text(14), name) if name[0] != "\0" else "@" + name[1:]
    return Listener(address, socket.AF_UNIX, kind, 0, 0)
