"""Pages are listed as they are used, and fetched without a change to what is in them."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

from libcriu_py.linux import pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Range = tuple[int, int, int]

PAGES = 512
WORD = struct.Struct("QQQ")


@contextmanager
def file_of(ranges: Sequence[Range]) -> Iterator[int]:
    """Yield the descriptor of a file of pages."""
    fd = os.memfd_create("pages")
    try:
        os.write(fd, b"".join(WORD.pack(*values) for values in ranges))
        yield fd
    finally:
        os.close(fd)


def listed(limit: int = 1 << 30) -> list[Range] | None:
    """List the pages of this process; None where that is refused."""
    fd = os.memfd_create("pages")
    try:
        if not pages.list_pages(os.getpid(), limit, fd):
            return None
        size = os.fstat(fd).st_size
        return [WORD.unpack(os.pread(fd, WORD.size, place)) for place in range(0, size, WORD.size)]
    finally:
        os.close(fd)


def state_of(ranges: Sequence[Range], start: int) -> list[str]:
    """Return for each page of an area whether it is listed as written, as read, or not at all."""
    state = ["-"] * PAGES
    for first, last, written in ranges:
        for address in range(max(first, start), min(last, start + PAGES * mmap.PAGESIZE), mmap.PAGESIZE):
            state[(address - start) // mmap.PAGESIZE] = "w" if written else "r"
    return state


def faults(area: mmap.mmap, *, write: bool) -> int:
    """Count the faults of touching each page of an area."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for offset in range(0, len(area), mmap.PAGESIZE):
        if write:
            area[offset] = area[offset]
        else:
            area[offset]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@contextmanager
def private_mapping(path: Path) -> Iterator[tuple[mmap.mmap, int, bytes]]:
    """Map a file privately; gives the mapping, its address and the content."""
    content = os.urandom(PAGES * mmap.PAGESIZE)
    path.write_bytes(content)
    with path.open("rb") as file:
        area = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    view = ctypes.c_char.from_buffer(area)
    address = ctypes.addressof(view)
    del view
    with area:
        yield area, address, content


def test_fetched_pages_fault_no_more(tmp_path: Path) -> None:
    """Those to be written can be written without a fault, and hold what they held; so does the file."""
    with private_mapping(tmp_path / "file") as (area, start, content):
        with file_of([(start, start + len(area), 1)]) as fd:
            pages.fetch_pages(fd)
        assert faults(area, write=True) < PAGES // 8
        assert area[:] == content
        area[0] = content[0] ^ 1
        assert (tmp_path / "file").read_bytes() == content


def test_pages_to_be_read_stay_those_of_the_file(tmp_path: Path) -> None:
    """They are mapped, and nothing of them is copied until it is written."""
    with private_mapping(tmp_path / "file") as (area, start, content):
        with file_of([(start, start + len(area), 0)]) as fd:
            pages.fetch_pages(fd)
        assert faults(area, write=False) < PAGES // 8
        assert "w" not in state_of(listed() or [], start)
        assert faults(area, write=True) > PAGES // 2
        assert area[:] == content


def test_list_tells_written_from_read(tmp_path: Path) -> None:
    """The list of one is what another fetches: exactly the written pages are written."""
    with private_mapping(tmp_path / "file") as (area, start, _):
        for page in (3, 4, 200):
            area[page * mmap.PAGESIZE] ^= 1
        state = state_of(listed() or [], start)
        assert [page for page, kind in enumerate(state) if kind == "w"] == [3, 4, 200]


def test_limit() -> None:
    """A process that has written more is not listed, nor is one that has ended."""
    assert listed(1 << 12) is None
    with file_of([]) as fd:
        assert not pages.list_pages(0x7FFFFFFF, 1 << 30, fd)


def test_nonsense_does_no_harm(tmp_path: Path) -> None:
    """Ranges that are not there, or are none, are passed over."""
    with private_mapping(tmp_path / "file") as (area, start, content):
        ranges = [(0, 1 << 63, 1), (start + 1, start + 5, 1), (start + 8192, start, 0), (1 << 62, 1 << 63, 0)]
        with file_of([*ranges, (start, start + mmap.PAGESIZE, 1)]) as fd:
            pages.fetch_pages(fd)
            os.write(fd, b"half")
            pages.fetch_pages(fd)
        assert area[:] == content
