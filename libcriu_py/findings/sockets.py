"""Whether criu can dump open sockets, by family and state (criu/sockets.c, sk-tcp.c, sk-unix.c)."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.findings.finding import Verdict

if TYPE_CHECKING:
    import _socket
    from collections.abc import Mapping

    Judgement = tuple[str, str, Verdict, str]

_LISTEN, _CLOSED, _FIN = 10, 7, frozenset({4, 5})
# NETLINK_SOCK_DIAG (linux/sock_diag.h, unix_diag.h): the only way to learn the peer of a UNIX socket.
_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ALL_STATES, _SHOW = 0xFFFFFFFF, 0x17  # name, file, peer, queues
_NLMSG_DONE, _NLMSG_ERROR = 3, 2
_ATTRIBUTE_NAME, _ATTRIBUTE_FILE, _ATTRIBUTE_PEER, _ATTRIBUTE_QUEUES, _ATTRIBUTE_SHUTDOWN = 0, 1, 2, 4, 6

ONE_COPY = "one copy at a time has the address; where another process has it, the program is started conventionally"
OWN_PORT = "each copy gets a port of its own if the system chose this one"


class Sockets:
    """
    The sockets of this network namespace, read when the first one is judged.

    Args:
        options: The options of the dump.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options
        self._peers: dict[int, int] | None = None
        self._ours: frozenset[int] | None = None

    def judge(self, fd: int, inode: int) -> Judgement:
        """Return the kind of a descriptor's socket, what it is, the verdict and the advice."""
        import _socket  # the C module: `socket` would import selectors and enum

        held = _socket.socket(fileno=os.dup(fd))
        try:
            if held.family == _socket.AF_UNIX:
                return self._unix(held, inode)
            if held.family in {_socket.AF_INET, _socket.AF_INET6}:
                return self._internet(held)
            if held.family == _socket.AF_NETLINK:
                return "netlink socket", f"protocol {held.proto}", Verdict.FINE, ""
            what = f"family {held.family}"
            return "socket", what, Verdict.IMPOSSIBLE, "criu does not know this family; close it in a before-hook"
        finally:
            held.close()

    def _internet(self, held: object) -> Judgement:
        import _socket

        sock: _socket.socket = held  # type: ignore[assignment]
        local = _address(sock.getsockname())
        if sock.type == _socket.SOCK_RAW:
            return "raw socket", local, Verdict.FINE, "needs CAP_NET_RAW"
        if sock.type != _socket.SOCK_STREAM:
            return "UDP socket", local, Verdict.FINE, _datagram_advice(sock, local)
        state = sock.getsockopt(_socket.IPPROTO_TCP, _socket.TCP_INFO, 1)[0]
        if state == _LISTEN:
            return "TCP listener", local, Verdict.FINE, ONE_COPY
        if state == _CLOSED:
            return "TCP socket", "not connected", Verdict.FINE, ""
        try:
            what = f"{local} to {_address(sock.getpeername())}"
        except OSError:
            what = local
        for option in ("tcp_established", "tcp_close"):
            if self._options.get(option):
                return "TCP connection", what, Verdict.HANDLED, f"by the option {option}"
        advice = (
            'close it in a before-hook and connect again in an after-hook, or use options={"tcp_close": True}, '
            "which gives each copy a closed connection"
        )
        return "TCP connection", what, Verdict.NEEDS_HOOK, advice

    def _unix(self, held: object, inode: int) -> Judgement:
        import _socket

        sock: _socket.socket = held  # type: ignore[assignment]
        listening = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        name = _address(sock.getsockname())
        if listening:
            return "UNIX listener", name, Verdict.FINE, ONE_COPY
        try:
            peer_name = _address(sock.getpeername())
        except OSError:
            return "UNIX socket", name or "not connected", Verdict.FINE, ONE_COPY if name else ""
        if self._peers is None:
            self._peers = unix_peers()
            self._ours = _inodes_of_tree()
        peer = self._peers.get(inode, 0)
        if peer == 0 or peer in (self._ours or ()):
            return "UNIX socket", f"connected inside this program {name}".rstrip(), Verdict.FINE, ""
        what = f"connected to {peer_name or 'an unnamed socket'} of another process"
        if self._options.get("ext_unix_sk") and sock.type == _socket.SOCK_DGRAM:
            return "UNIX socket", what, Verdict.HANDLED, "by the option ext_unix_sk"
        advice = "the other end is not dumped; close it in a before-hook and connect again in an after-hook"
        return "UNIX socket", what, Verdict.NEEDS_HOOK, advice


def _datagram_advice(sock: _socket.socket, local: str) -> str:
    try:
        sock.getpeername()
    except OSError:
        return "" if local.endswith(":0") else ONE_COPY
    return OWN_PORT


def _address(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    if isinstance(address, bytes):
        return "@" + address[1:].decode("utf-8", "replace")
    return str(address)


def _inodes_of_tree() -> frozenset[int]:
    """Return the inodes of the sockets that this process and its descendants have open."""
    from libcriu_py.linux.processes import processes

    found = set()
    for pid in processes():
        try:
            names = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has ended
        for name in names:
            try:
                link = os.readlink(f"/proc/{pid}/fd/{name}")
            except OSError:
                continue
            if link.startswith("socket:["):
                found.add(int(link[8:-1]))
    return frozenset(found)


class Bound(NamedTuple):
    """A UNIX socket with a name."""

    waiting: int = 0
    """If it listens, connections that nobody has accepted yet."""
    backlog: int = 0
    file: int = 0
    """The lower half of the inode to which it is bound; 0 for an abstract name."""


def unix_peers(odd: set[int] | None = None, bound: dict[int, Bound] | None = None) -> dict[int, int]:
    """
    Return the inode of each connected UNIX socket's peer, by its own inode.

    Args:
        odd: Gets the inodes of those that have a name, or that shutdown(2) has closed in part.
        bound: Gets what the kernel tells of each that is no pair's end, by its inode.
    """
    import _socket

    netlink = _socket.socket(_socket.AF_NETLINK, _socket.SOCK_RAW, _SOCK_DIAG)
    peers: dict[int, int] = {}
    odd = set() if odd is None else odd
    bound = {} if bound is None else bound
    try:
        # struct nlmsghdr, struct unix_diag_req
        body = struct.pack("=BBHIIIII", _socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW, 0, 0)
        netlink.send(struct.pack("=IHHII", 16 + len(body), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while _read_answer(netlink.recv(1 << 16), peers, odd, bound):
            pass
    finally:
        netlink.close()
    return peers


def _read_answer(data: bytes, peers: dict[int, int], odd: set[int], bound: dict[int, Bound]) -> bool:
    """Read the messages of one datagram; return whether more follow."""
    place = 0
    while place + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, place)
        if kind in {_NLMSG_DONE, _NLMSG_ERROR} or length < 16:
            return False
        # struct unix_diag_msg: family, type, state, pad, inode, cookie; then attributes
        (inode,) = struct.unpack_from("=I", data, place + 20)
        attribute = place + 32
        while attribute + 4 <= place + length:
            size, number = struct.unpack_from("=HH", data, attribute)
            if number == _ATTRIBUTE_PEER:
                (peers[inode],) = struct.unpack_from("=I", data, attribute + 4)
            elif number == _ATTRIBUTE_NAME or (number == _ATTRIBUTE_SHUTDOWN and data[attribute + 4]):
                odd.add(inode)
            elif number == _ATTRIBUTE_QUEUES:
                waiting, backlog = struct.unpack_from("=II", data, attribute + 4)
                bound[inode] = bound.get(inode, Bound())._replace(waiting=waiting, backlog=backlog)
            elif number == _ATTRIBUTE_FILE:
                (file,) = struct.unpack_from("=I", data, attribute + 4)
                bound[inode] = bound.get(inode, Bound())._replace(file=file)
            attribute += max(4, size + 3 & ~3)
        place += length + 3 & ~3
    return True
