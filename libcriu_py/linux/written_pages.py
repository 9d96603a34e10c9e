"""Recording which pages of private file mappings another process writes to (csrc/copy/observe.c)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from libcriu_py.linux.ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTERVAL = 0.002
"""Seconds between two reads of the pagemap: a process may free memory before its end."""


def observe(pid: int) -> None:
    """
    Start tracing a process, so that it stops before its memory is freed.

    Args:
        pid: The process.

    Raises:
        OSError: Tracing is not permitted.
    """
    _check(lib.lcp_observe(pid))


def note_until_end(pid: int, written: Mapping[tuple[int, int], bytearray]) -> None:
    """
    Record the pages that a traced process writes to, until it ends.

    Args:
        pid: The process.
        written: By start and end of an area: a byte for each page, set to 1 when it is written to.

    Raises:
        OSError: The process cannot be observed any more.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    pagemap = _check(lib.lcp_open_pagemap(pid))
    try:
        while True:
            ending = lib.lcp_is_ending(pid)
            for (start, _), pages in written.items():
                _check(lib.lcp_written_pages(pagemap, start // page, len(pages), ffi.from_buffer(pages)))
            if ending:
                break
            time.sleep(_INTERVAL)
    finally:
        os.close(pagemap)
    if ending > 0:
        _check(lib.lcp_stop_observing(pid))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(-result, f"the copy cannot be observed: {os.strerror(-result)}")
    return result
