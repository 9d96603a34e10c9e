"""
Reading CRIU's images.

The numbers of fields are those of images/*.proto in CRIU's source.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images.codec import first_entry, message, number, parse, read_entries, text

if TYPE_CHECKING:
    from libcriu_py.images.codec import Fields, Path

__all__ = [
    "Descriptor",
    "Inventory",
    "Mapping",
    "OpenFile",
    "Process",
    "descriptors",
    "dump_stats",
    "files",
    "inventory",
    "memory",
    "process_tree",
    "read_entries",
    "restore_stats",
    "saved_memory",
]

_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_PE_PRESENT = 4  # criu/include/pagemap.h

_DUMP_STATS = {
    1: "freezing_time",
    2: "frozen_time",
    3: "memdump_time",
    4: "memwrite_time",
    5: "pages_scanned",
    6: "pages_skipped_parent",
    7: "pages_written",
    8: "irmap_resolve",
    9: "pages_lazy",
    10: "page_pipes",
    11: "page_pipe_bufs",
    12: "shpages_scanned",
    13: "shpages_skipped_parent",
    14: "shpages_written",
}

_RESTORE_STATS = {
    1: "pages_compared",
    2: "pages_skipped_cow",
    3: "forking_time",
    4: "restore_time",
    5: "pages_restored",
}

# fd_types of images/fdinfo.proto, by number.
_FILE_KINDS = (
    *("unknown", "file", "pipe", "fifo", "inet-socket", "unix-socket", "eventfd", "epoll", "inotify", "signalfd"),
    *("packet-socket", "tty", "fanotify", "netlink-socket", "namespace", "tun", "external", "timerfd", "memfd"),
    *("bpf-map", "pidfd"),
)
_REG, _INET, _UNIX = 1, 4, 5

# Bits of a mapping's status, criu/include/image.h.
_VMA_KINDS = (
    (1 << 1, "stack"),
    (1 << 2, "vdso"),
    (1 << 3, "vdso"),
    (1 << 12, "vdso"),
    (1 << 5, "heap"),
    (1 << 10, "System V shared"),
    (1 << 14, "memfd"),
    (1 << 6, "file, private"),
    (1 << 7, "file, shared"),
    (1 << 8, "anonymous, shared"),
    (1 << 9, "anonymous"),
)


_VMA_FILE = 1 << 6 | 1 << 7
_MAP_GROWSDOWN = 0x100


class Inventory(NamedTuple):
    """
    What an image says of itself.

    Attributes:
        version: The version of the image format.
        run_id: The identity of the run of criu that wrote it, empty before CRIU 4.1.
        uptime: When it was written, in microseconds since boot; None if unknown.
    """

    version: int
    run_id: str
    uptime: int | None


class Process(NamedTuple):
    """
    A process of the tree.
    """

    pid: int
    ppid: int
    pgid: int
    sid: int
    threads: tuple[int, ...]
    name: str


class Mapping(NamedTuple):
    """
    A memory area of a process.

    Attributes:
        start: Its first address.
        end: The address after its last.
        protection: PROT_ bits.
        flags: MAP_ bits.
        kind: "heap", "stack", "anonymous", "file, private", ...
        path: The mapped file, empty if there is none.
        offset: Where in the file it begins, in bytes.
    """

    start: int
    end: int
    protection: int
    flags: int
    kind: str
    path: str
    offset: int


class OpenFile(NamedTuple):
    """
    An open file description.

    Attributes:
        id: Its number within the image.
        kind: "file", "pipe", "inet-socket", ...
        name: A path, or the addresses of a socket; empty where there is none.
        size: The size that a regular file must have on restore, None where that is not compared.
        position: The offset in a regular file, None for other kinds.
    """

    id: int
    kind: str
    name: str
    size: int | None = None
    position: int | None = None


class Descriptor(NamedTuple):
    """
    A descriptor of a process.
    """

    fd: int
    file: OpenFile


def dump_stats(images_dir: Path) -> dict[str, int]:
    """
    Return the statistics of a dump: times in microseconds, numbers of pages.

    Args:
        images_dir: The directory of the images, or of the work files if there was one.

    Returns:
        The counters by name, as in images/stats.proto.

    Raises:
        ImageError: There are none, or they are damaged.
    """
    return _stats(os.path.join(images_dir, "stats-dump"), 1, _DUMP_STATS)


def restore_stats(work_dir: Path) -> dict[str, int]:
    """
    Return the statistics of a restore: times in microseconds, numbers of pages.

    Args:
        work_dir: The directory of the work files, or of the images if there was none.

    Returns:
        The counters by name, as in images/stats.proto.

    Raises:
        ImageError: There are none, or they are damaged.
    """
    return _stats(os.path.join(work_dir, "stats-restore"), 2, _RESTORE_STATS)


def inventory(images_dir: Path) -> Inventory:
    """
    Return what an image says of itself.

    Args:
        images_dir: The directory of the images.

    Returns:
        Version and origin.

    Raises:
        ImageError: It is missing or damaged.
    """
    fields = first_entry(os.path.join(images_dir, "inventory.img"), "inventory")
    return Inventory(number(fields, 1), text(fields, 13), number(fields, 8) if 8 in fields else None)


def process_tree(images_dir: Path) -> list[Process]:
    """
    Return the processes of an image, the root first.

    Args:
        images_dir: The directory of the images.

    Returns:
        The processes.

    Raises:
        ImageError: An image is missing or damaged.
    """
    found = []
    for fields in read_entries(os.path.join(images_dir, "pstree.img"), "pstree"):
        pid = number(fields, 1)
        threads = tuple(item for item in fields.get(5, []) if isinstance(item, int))
        core = read_entries(os.path.join(images_dir, f"core-{pid}.img"), "core")
        name = text(message(core[0], 3), 6) if core else ""
        found.append(Process(pid, number(fields, 2), number(fields, 3), number(fields, 4), threads, name))
    return found


def files(images_dir: Path) -> dict[int, OpenFile]:
    """
    Return the open files of all processes, by their number within the image.

    Args:
        images_dir: The directory of the images.

    Returns:
        The files, mapped ones and working directories included.

    Raises:
        ImageError: The image is missing or damaged.
    """
    entries = read_entries(os.path.join(images_dir, "files.img"), "files")
    return {file.id: file for file in map(_open_file, entries)}


def descriptors(images_dir: Path, pid: int) -> list[Descriptor]:
    """
    Return the descriptors of a process.

    Args:
        images_dir: The directory of the images.
        pid: The process.

    Returns:
        The descriptors, by number.

    Raises:
        ImageError: An image is missing or damaged.
    """
    known = files(images_dir)
    table = number(first_entry(os.path.join(images_dir, f"ids-{pid}.img"), "ids"), 2)
    found = []
    for fields in read_entries(os.path.join(images_dir, f"fdinfo-{table}.img"), "fdinfo"):
        file_id = number(fields, 1)
        file = known.get(file_id) or OpenFile(file_id, _file_kind(number(fields, 3)), "")
        found.append(Descriptor(number(fields, 4), file))
    return sorted(found)


def memory(images_dir: Path, pid: int) -> list[Mapping]:
    """
    Return the memory areas of a process.

    Args:
        images_dir: The directory of the images.
        pid: The process.

    Returns:
        The areas, by address.

    Raises:
        ImageError: An image is missing or damaged.
    """
    known = files(images_dir)
    fields = first_entry(os.path.join(images_dir, f"mm-{pid}.img"), "mm")
    return [_mapping(parse(area), known) for area in fields.get(14, []) if isinstance(area, bytes)]


def saved_memory(images_dir: Path, pid: int) -> int:
    """
    Return how many bytes of a process's memory this image contains, those of parent images left out.

    Args:
        images_dir: The directory of the images.
        pid: The process.

    Returns:
        The size in bytes.

    Raises:
        ImageError: The image is missing or damaged.
    """
    pages = 0
    for fields in read_entries(os.path.join(images_dir, f"pagemap-{pid}.img"), "pagemap")[1:]:
        flags = number(fields, 4) if 4 in fields else (0 if number(fields, 3) else _PE_PRESENT)
        if flags & _PE_PRESENT:
            pages += number(fields, 5) if 5 in fields else number(fields, 2)
    return pages * _PAGE_SIZE


def _stats(path: str, part: int, names: dict[int, str]) -> dict[str, int]:
    fields = message(first_entry(path, "stats"), part)
    return {name: number(fields, key) for key, name in names.items() if key in fields}


def _mapping(area: Fields, known: dict[int, OpenFile]) -> Mapping:
    status = number(area, 7)
    kind = next((name for bit, name in _VMA_KINDS if status & bit), "other")
    if number(area, 6) & _MAP_GROWSDOWN:
        kind = "stack"
    # For mapped files this field holds the number of the file (criu/files-reg.c, open_vma).
    file = known.get(number(area, 4)) if status & _VMA_FILE else None
    return Mapping(
        start=number(area, 1),
        end=number(area, 2),
        protection=number(area, 5),
        flags=number(area, 6),
        kind=kind,
        path=file.name if file else "",
        offset=number(area, 3) if file else 0,
    )


def _open_file(fields: Fields) -> OpenFile:
    kind, file_id = number(fields, 1), number(fields, 2)
    if kind == _REG:
        regular = message(fields, 3)
        size = number(regular, 8) if 8 in regular else None
        return OpenFile(file_id, "file", text(regular, 6), size, number(regular, 3))
    if kind == _INET:
        return OpenFile(file_id, _file_kind(kind), _inet_name(message(fields, 4)))
    if kind == _UNIX:
        name = text(message(fields, 16), 11)
        return OpenFile(file_id, _file_kind(kind), name.rstrip("\0").replace("\0", "@", 1))
    return OpenFile(file_id, _file_kind(kind), "")


def _inet_name(entry: Fields) -> str:
    family = number(entry, 3)
    ends = []
    for addresses, port in ((11, 7), (12, 8)):
        words = [word for word in entry.get(addresses, []) if isinstance(word, int)]
        raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        size = 4 if family == socket.AF_INET else 16
        address = socket.inet_ntop(family, raw[:size]) if len(raw) >= size else "?"
        ends.append(f"[{address}]:{number(entry, port)}" if ":" in address else f"{address}:{number(entry, port)}")
    return ends[0] if number(entry, 8) == 0 else f"{ends[0]} -> {ends[1]}"


def _file_kind(kind: int) -> str:
    return _FILE_KINDS[kind] if kind < len(_FILE_KINDS) else "unknown"
