"""Listing the pages that a copy uses, and fetching them before they are touched (csrc/copy)."""

from __future__ import annotations

import os

from libcriu_py.linux.ffi import lib

_prefetch = lib.lcp_prefetch  # resolved at import: cffi's first lookup allocates, in each copy


def list_pages(pid: int, limit: int, file: int) -> bool:
    """
    Write to a file which private pages a process uses.

    Args:
        pid: The process.
        limit: How much it may have written, in bytes.
        file: A descriptor of the file.

    Returns:
        False if the process is gone, must not be inspected, or has written more than the limit.
    """
    return int(lib.lcp_list_pages(pid, limit, file)) == 0


def fetch_pages(file: int) -> None:
    """Map in the pages that a file of `list_pages` names, before they are used."""
    lib.lcp_fetch_pages(file)


def prefetch(path: str) -> None:
    """
    Copy the pages of a working set before this process writes to them.

    Args:
        path: The working-set file (`memory.working_set`); nothing happens if it does not exist.
    """
    _prefetch(os.fsencode(path))
