"""Rewriting images, with segments of memory as private mappings of `memory.img`."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory import libraries
from libcriu_py.memory.blocks import BlockWriter
from libcriu_py.memory.memory import (
    COMPAT_NR_PAGES,
    END,
    FD,
    FDFLAGS,
    FILE_PRIVATE,
    FLAGS,
    HEAP,
    MADV,
    MAP_ANONYMOUS,
    MM_VMAS,
    NR_PAGES,
    PAGE,
    PE_FLAGS,
    PE_PRESENT,
    PGOFF,
    REGULAR,
    SHMID,
    START,
    STATUS,
    VADDR,
    Area,
    Memory,
)
from libcriu_py.memory.owners import LIBRARY_FILE, MALLOC_BLOCK
from libcriu_py.snapshot.staging import link

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from libcriu_py.memory.libraries import File
    from libcriu_py.memory.plan import Segment

_PLACE = {START, END, PGOFF}
_MINUS_ONE = 1  # as a sint64: zigzag
_REG = 1  # enum fd_types (CRIU's images/fdinfo.proto)
_FILE_TYPE, _FILE_ID, _FILE_REG = 1, 2, 3
_REG_ID, _REG_FLAGS, _REG_POS, _REG_FOWN, _REG_NAME, _REG_SIZE = 1, 2, 3, 5, 6, 8
_BLOCK = 4 << 20
_NO_COPY_FILE_RANGE = {errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.ETXTBSY}


def link_rest(source: str, target: str, without: set[str]) -> None:
    """
    Link the files of a directory into another one, or copy them if that is not possible.

    Args:
        source: The directory that has them.
        target: The other directory.
        without: Names to leave out.
    """
    for name in set(os.listdir(source)) - without:
        link(os.path.join(source, name), os.path.join(target, name))


def write_process(memory: Memory, segments: Sequence[Segment], target: str, file_id: int) -> None:
    """
    Write mm, pagemap and pages of one process.

    Args:
        memory: The dumped memory.
        segments: What to map.
        target: The directory of the new images.
        file_id: The id of `memory.img` for this process in the new files image. Processes have different ids, because
            CRIU takes equal ranges of one file in parent and child for shared (criu/mem.c, check_cow_vmas).
    """
    mm = memory.mm.copy()
    mm.replace_all(MM_VMAS, [message.encode() for message in _areas(memory.areas, segments, file_id)])
    framing.write(os.path.join(target, f"mm-{memory.pid}.img"), "mm", [mm])
    entries = [memory.head]
    fd = os.open(os.path.join(target, memory.pages_name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = 0
        for start, end, offset, entry in _kept(memory, segments):
            if offset is not None:
                copy(memory.fd, offset, fd, size, end - start)
            entries.append(_entry(entry, start, end))
            size += end - start
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    framing.write(os.path.join(target, memory.pagemap_name), "pagemap", entries)


def write_content(memory: Memory, segments: Sequence[Segment], fd: int, files: Mapping[int, File]) -> None:
    """
    Write the content of segments to `memory.img`; pages neither stored nor from a library are zeros or holes.

    Args:
        memory: The memory of the process.
        segments: Its segments.
        fd: A descriptor of `memory.img`.
        files: The regular files of the dump, by id.

    Raises:
        OSError: The file cannot be written, or a library has changed.
    """
    writer = BlockWriter(fd)
    for segment in segments:
        if segment.shared:
            continue
        if segment.owner == LIBRARY_FILE:
            _write_library(writer, memory, segment, files)
            continue
        for start, end, offset in memory.pieces(segment.start, segment.end):
            writer.copy(memory.fd, offset, segment.offset + start - segment.start, end - start)
    writer.flush()


def _write_library(writer: BlockWriter, memory: Memory, segment: Segment, files: Mapping[int, File]) -> None:
    (area,) = memory.areas_within(segment.start, segment.end)
    with libraries.opened(files[area.message.number(SHMID)]) as library:
        for start, end, offset, is_library in library.content(memory, area, segment.start, segment.end):
            source = library.fd if is_library else memory.fd
            writer.copy(source, offset, segment.offset + start - segment.start, end - start)


def erase(memory: Memory) -> None:
    """Overwrite memory that a fork wipes in a pages file that is about to be removed, unless a snapshot shares it."""
    fd = os.open(memory.pages_path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_nlink == 1:
            for start, end in memory.wiped:
                for low, high, offset in memory.pieces(start, end):
                    os.pwrite(fd, bytes(high - low), offset)
    finally:
        os.close(fd)


def add_files(files: list[Message], ids: Sequence[int], key: str, size: int) -> list[Message]:
    """
    Add a file that areas map to the files image.

    Args:
        files: The messages of the files image.
        ids: The ids by which areas refer to the file.
        key: Its path without the leading slash, by which a restore replaces it.
        size: Its size in bytes.

    Returns:
        The messages of the new files image.
    """
    return [*files, *(_file(number, key, size) for number in ids)]


def file_ids(files: list[Message]) -> set[int]:
    """Return the ids in use in a files image."""
    return {message.number(_FILE_ID) for message in files}


def _file(number: int, key: str, size: int) -> Message:
    # uid, euid, signum, pid_type, pid: nobody gets a signal (images/fown.proto).
    fown = Message([(field, 0, 0) for field in range(1, 6)])
    reg = Message()
    for field, value in (
        (_REG_ID, number),
        (_REG_FLAGS, os.O_RDONLY),
        (_REG_POS, 0),
        (_REG_FOWN, fown.encode()),
        (_REG_NAME, os.fsencode("/" + key)),
        (_REG_SIZE, size),
    ):
        reg.set(field, value)
    message = Message()
    message.set(_FILE_TYPE, _REG)
    message.set(_FILE_ID, number)
    message.set(_FILE_REG, reg.encode())
    return message


# ---- areas -----------------------------------------------------------------


def _areas(areas: Sequence[Area], segments: Sequence[Segment], file_id: int) -> Iterator[Message]:
    """Yield all areas; join mappings adjacent in memory and file, as the kernel does."""
    last: Message | None = None
    open_ended = False
    for message, mergeable in _unmerged(areas, segments, file_id):
        if last is not None and open_ended and mergeable and _follows(last, message):
            last.set(END, message.number(END))
            continue
        if last is not None:
            yield last
        last, open_ended = message, mergeable
    if last is not None:
        yield last


def _unmerged(areas: Sequence[Area], segments: Sequence[Segment], file_id: int) -> Iterator[tuple[Message, bool]]:
    """
    Yield all areas, and whether each may be joined with its neighbours.

    These are areas mapped from the file, except the heap, whose end brk(2) moves, and large malloc blocks, which
    `division` looks for.
    """
    place = 0
    for area in areas:
        at = area.start
        while place < len(segments) and segments[place].start < area.end:
            segment = segments[place]
            place += 1
            if at < segment.start:
                yield part(area, at, segment.start), False
            message = mapped(area, segment.start, segment.end, segment.offset, file_id)
            yield message, not area.status & HEAP and segment.owner != MALLOC_BLOCK
            at = segment.end
        if at == area.start:
            yield area.message, False
        elif at < area.end:
            yield part(area, at, area.end), False


def _follows(one: Message, other: Message) -> bool:
    """Return whether a mapping continues another one and is otherwise equal."""
    first, second = ([item for item in message.fields if item[0] not in _PLACE] for message in (one, other))
    size = one.number(END) - one.number(START)
    return (
        first == second and one.number(END) == other.number(START) and one.number(PGOFF) + size == other.number(PGOFF)
    )


def part(area: Area, start: int, end: int) -> Message:
    """Return a part of an area, not mapped from `memory.img`."""
    message = area.message.copy()
    message.set(START, start)
    message.set(END, end)
    if area.status & FILE_PRIVATE:
        message.set(PGOFF, message.number(PGOFF) + start - area.start)
    return message


def mapped(area: Area, start: int, end: int, offset: int, file_id: int) -> Message:
    """Return a part of an area as a private mapping of `memory.img`."""
    message = area.message.copy()
    message.set(START, start)
    message.set(END, end)
    message.set(PGOFF, offset)
    message.set(SHMID, file_id)
    message.set(FLAGS, area.flags & ~MAP_ANONYMOUS)
    message.set(STATUS, REGULAR | FILE_PRIVATE)
    message.set(FD, _MINUS_ONE)
    # Huge page advice is for anonymous memory. Without FDFLAGS, CRIU opens the file read-only, as it should.
    message.drop(MADV)
    message.drop(FDFLAGS)
    return message


# ---- pages -----------------------------------------------------------------


def _kept(memory: Memory, segments: Sequence[Segment]) -> Iterator[tuple[int, int, int | None, Message | None]]:
    """Yield what stays in the pages file: start, end, old offset (None: zeros) and pagemap entry."""
    at = 0
    for segment in segments:
        yield from _stored(memory, at, segment.start)
        for start, end in segment.differing:
            yield from _with_zeros(memory, start, end)
        at = segment.end
    yield from _stored(memory, at, 1 << 64)


def _stored(memory: Memory, start: int, end: int) -> Iterator[tuple[int, int, int, Message]]:
    for run in memory.runs_within(start, end):
        for low, high in _outside(memory.wiped, max(start, run.start), min(end, run.end)):
            yield low, high, run.offset + low - run.start, run.message


def _outside(ranges: Sequence[tuple[int, int]], low: int, high: int) -> Iterator[tuple[int, int]]:
    """Yield the parts from one address to another that are in none of the ranges, which are in order."""
    for start, end in ranges:
        if low < end and start < high:
            if low < start:
                yield low, start
            low = end
    if low < high:
        yield low, high


def _with_zeros(memory: Memory, start: int, end: int) -> Iterator[tuple[int, int, int | None, Message | None]]:
    for low, high, offset, entry in _stored(memory, start, end):
        if start < low:
            yield start, low, None, None
        yield low, high, offset, entry
        start = high
    if start < end:
        yield start, end, None, None


def _entry(like: Message | None, start: int, end: int) -> Message:
    if like is None:
        like = Message()
        for field, value in ((VADDR, 0), (COMPAT_NR_PAGES, 1), (PE_FLAGS, PE_PRESENT), (NR_PAGES, 1)):
            like.set(field, value)
    entry = like.copy()
    count = (end - start) // PAGE
    entry.set(VADDR, start)
    # CRIU before 4.1 knows the 32-bit field only (images/pagemap.proto).
    if entry.number(NR_PAGES, -1) != -1:
        entry.set(NR_PAGES, count)
    if entry.number(COMPAT_NR_PAGES) or entry.number(NR_PAGES, -1) == -1:
        entry.set(COMPAT_NR_PAGES, count)
    return entry


def copy(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
    """Copy bytes between files, in the kernel if the file systems can."""
    while size:
        try:
            done = os.copy_file_range(source, target, size, source_offset, target_offset)
        except OSError as error:
            if error.errno not in _NO_COPY_FILE_RANGE:
                raise
            done = 0
        if not done:
            done = os.pwrite(target, os.pread(source, min(size, _BLOCK), source_offset), target_offset)
        if not done:
            message = "a pages file ends early"
            raise OSError(errno.EIO, message)
        source_offset += done
        target_offset += done
        size -= done
