"""The pages of private file mappings that another process writes to, by tracing its end (csrc/copy/observe.c)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from libcriu_py._ffi import ffi, lib

if TYPE_CHECKING:
    from collections.abc import Mapping

_INTERVAL = 0.002
"""Seconds between two looks at a process's pages: memory may be given back before the end."""


def observe(pid: int) -> None:
    """
    Begin to trace a process, which stops before its memory goes.

    Args:
        pid: The process.

    Raises:
        OSError: It may not be traced.
    """
    _check(lib.lcp_observe(pid))


def note_until_end(pid: int, written: Mapping[tuple[int, int], bytearray]) -> None:
    """
    Note what a traced process writes to, until its end.

    Args:
        pid: The process.
        written: A byte for each page of the areas that are of interest, by their bounds, which is set to 1.

    Raises:
        OSError: It cannot be observed any more.
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
