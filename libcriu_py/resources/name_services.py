"""
Name services: what the C library and SSSD's plugin hold of the daemons that they ask for hosts and accounts.

glibc maps the databases of nscd, and asks for them anew where one says that nscd has ended and is old
(nscd/nscd_helper.c, __nscd_get_map_ref). libnss_sss maps caches and keeps a connection; it connects again where that
has hung up, and forgets a cache that says that it was replaced (sss_client/common.c, sss_cli_check_socket;
sss_client/nss_mc_common.c, sss_nss_check_header). So neither files nor connections of daemons, which most users may
not open themselves, are part of a dump, and copies ask those of the place where they are. glibc reads a changed
/etc/resolv.conf anew by itself (resolv/resolv_conf.c).
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
"""Where a database says whether its nscd runs, and since when: `database_pers_head` of nscd/nscd-client.h."""
_SSSD_HAS_REPLACED = (12, struct.pack("=I", 2))
"""Where a cache has its status, and SSS_MC_HEADER_RECYCLED: `sss_mc_header` of util/mmap_cache.h."""

_MAP_PRIVATE_ANONYMOUS = 0x22
_MREMAP_MAYMOVE_FIXED = 3
_PROT_READ, _PROT_WRITE = 1, 2


class NameServices(BuiltIn):
    """Mapped databases of nscd and SSSD, and connections to SSSD."""

    def let_go(self) -> None:
        """Let the next question be one as if it were the first."""
        asked = False
        for mapped in list(mapped_ranges()):
            if mapped.path.startswith(_NSCD):
                _take_over(mapped.start, mapped.size, _NSCD_HAS_ENDED)
            elif mapped.path.startswith(_SSSD):
                _take_over(mapped.start, mapped.size, _SSSD_HAS_REPLACED)
            asked = asked or "/libnss_sss." in mapped.path
        if asked:
            for fd in list(_descriptors()):
                _hang_up(fd)


def _take_over(start: int, size: int, change: tuple[int, bytes]) -> None:
    """Replace a mapping with private memory, atomically, with the same content but for what says that it is over."""
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


def _hang_up(fd: int) -> None:
    """Put what is of no use in the place of a descriptor: the number stays taken, for the plugin will close it."""
    import socket
    import stat

    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        with socket.socket(socket.AF_UNIX) as other:  # never connected, which poll(2) tells as hung up
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
            continue  # of the listing itself, or not connected
        if link.startswith(_SSSD):
            yield int(name)
