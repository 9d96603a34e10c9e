"""CRC-32C (csrc/common/sum.h): several GB a second if the processor has an instruction for it."""

from __future__ import annotations

from libcriu_py.linux.ffi import checked, ffi, lib


def sum_bytes(data: bytes, start: int = 0) -> int:
    """Return the sum of bytes, going on from that of what came before."""
    return int(lib.lcp_sum(start, data, len(data)))


def sum_file(fd: int) -> int:
    """
    Return the sum of an open file, from its beginning to its end.

    Args:
        fd: Its descriptor.

    Raises:
        OSError: It cannot be read.
    """
    found = ffi.new("uint32_t *")
    checked(lib.lcp_sum_file(fd, found))
    return int(found[0])
