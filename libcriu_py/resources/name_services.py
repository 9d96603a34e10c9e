"""
Name services: detach the C library and SSSD's plugin from the daemons that they ask for hosts and accounts.

Most users cannot open the daemons' files and connections themselves, so these must not be part of a dump; copies ask
the daemons of their own machine. glibc maps the databases of nscd, and maps them anew if one says that its nscd has
ended (nscd/nscd_helper.c, __nscd_get_map_ref). libnss_sss maps caches and keeps a connection; it reconnects if that has
hung up, and drops a cache that says that it was replaced (sss_client/common.c, sss_cli_check_socket;
sss_client/nss_mc_common.c, sss_nss_check_header). glibc rereads a changed /etc/resolv.conf (resolv/resolv_conf.c).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.resources.base import BuiltIn

if TYPE_CHECKING:
    from collections.abc import Iterator

_NSCD = ("/var/cache/nscd/", "/var/db/nscd/", "/var/run/nscd/", "/run/nscd/")
_SSSD = "/var/lib/sss/"
_NSCD_HAS_ENDED = (12, struct.pack("=iq", 0, 0))
"""Offset and value of "not running, since 1970" in a database: `database_pers_head` of nscd/nscd-client.h."""
_SSSD_HAS_REPLACED = (12, struct.pack("=I", 2))
"""Offset and value of SSS_MC_HEADER_RECYCLED in a cache: `sss_mc_header` of util/mmap_cache.h."""

_MAP_PRIVATE_ANONYMOUS = 0x22
_MREMAP_MAYMOVE_FIXED = 3
_PROT_READ, _PROT_WRITE = 1, 2


class NameServices(BuiltIn):
    """The mapped databases of nscd and SSSD, and the connections to SSSD."""

    def before_dump(self) -> None:
        """Make the C library and the plugin start over at the next lookup."""
        asked = False
        for mapped in [*mapped_ranges(having="nscd/"), *mapped_ranges(having="sss")]:
            if mapped.path.startswith(_NSCD):
                _replace(mapped.start, mapped.size, _NSCD_HAS_ENDED)
            elif mapped.path.startswith(_SSSD):
                _replace(mapped.start, mapped.size, _SSSD_HAS_REPLACED)
            asked = asked or "/libnss_sss." in mapped.path
        if asked:
            for fd in list(_descriptors()):
                _disconnect(fd)


def _replace(start: int, size: int, change: tuple[int, bytes]) -> None:
    """Replace a mapping atomically with private memory of the same content, but marked as stale."""
    import ctypes

    libc: Any = ctypes.CDLL(None, use_errno=True)
    for function in (libc.mmap, libc.mremap):
        function.restype = ctypes.c_void_p
    protection = _PROT_READ | _PROT_WRITE
    made = libc.mmap(None, ctypes.c_size_t(size), protection, _MAP_PRIVATE_ANONYMOUS, -1, ctypes.c_long(0))
    failed = ctypes.c_void_p(-1).value
    if made != failed:
        offset, data = change
        ctypes.memmove(made, start, size)
        ctypes.memmove(made + offset, data, len(data))
        length = ctypes.c_size_t(size)
        made = libc.mremap(ctypes.c_void_p(made), length, length, _MREMAP_MAYMOVE_FIXED, ctypes.c_void_p(start))
    if made == failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _disconnect(fd: int) -> None:
    """Replace a descriptor with a dummy: the number must stay taken, because the plugin will close it."""
    import socket
    import stat

    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(socket.AF_UNIX) as other:  # poll(2) reports an unconnected one as hung up
            os.dup2(other.fileno(), fd, inheritable=False)
    else:
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(null, fd, inheritable=False)
        os.close(null)


def _descriptors() -> Iterator[int]:
    """Yield the descriptors of SSSD's caches and connections."""
    import socket

    for name in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{name}")
            if link.startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as held:
                    address = held.getpeername() if held.family == socket.AF_UNIX else ""
                    link = address if isinstance(address, str) else ""
        except OSError:
            continue  # the listing's own descriptor, or a socket without a peer
        if link.startswith(_SSSD):
            yield int(name)
