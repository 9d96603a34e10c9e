"""
Reading what CRIU's images say of processes, files and memory.

Field numbers are from images/*.proto in CRIU's source.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import FIXED32, FIXED64, Message

if TYPE_CHECKING:
    Path = str | os.PathLike[str]


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
    The inventory of a directory of images.

    Attributes:
        version: The version of the image format.
        run_id: The id of the criu run that wrote the images; empty before CRIU 4.1.
        uptime: The time of the dump, in microseconds since boot; None if unknown.
    """

    version: int
    run_id: str
    uptime: int | None


class Process(NamedTuple):
    """A process of the tree."""

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
        path: The mapped file; empty if there is none.
        offset: The offset of its start in the file, in bytes.
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
        id: Its id in the images.
        kind: "file", "pipe", "inet-socket", ...
        name: A path, or the addresses of a socket; empty where there is none.
        size: The size in bytes that a regular file must have at a restore; None if that is not compared.
        position: The offset in a regular file; None for other kinds.
    """

    id: int
    kind: str
    name: str
    size: int | None = None
    position: int | None = None


class Descriptor(NamedTuple):
    """A descriptor of a process."""

    fd: int
    file: OpenFile


def dump_stats(images_dir: Path) -> dict[str, int]:
    """
    Return the statistics of a dump: times in microseconds, numbers of pages.

    Args:
        images_dir: The work directory of the dump; by default that of the images.

    Returns:
        The counters by name, as in images/stats.proto.

    Raises:
        ImageError: The statistics are missing or damaged.
    """
    return _stats(os.path.join(images_dir, "stats-dump"), 1, _DUMP_STATS)


def restore_stats(work_dir: Path) -> dict[str, int]:
    """
    Return the statistics of a restore: times in microseconds, numbers of pages.

    Args:
        work_dir: The work directory of the restore; by default that of the images.

    Returns:
        The counters by name, as in images/stats.proto.

    Raises:
        ImageError: The statistics are missing or damaged.
    """
    return _stats(os.path.join(work_dir, "stats-restore"), 2, _RESTORE_STATS)


def read_entries(path: Path, kind: str) -> list[dict[int, list[int | bytes]]]:
    """
    Read an image file.

    Args:
        path: The file.
        kind: The required kind: "core", "fdinfo", "files", "ids", "inventory", "mm", "pagemap", "pstree" or
            "stats".

    Returns:
        The fields of each entry by number; integers are unsigned.

    Raises:
        ImageError: The image is missing, of another kind, or damaged.
    """
    entries = []
    for message in framing.read(path, kind):
        fields: dict[int, list[int | bytes]] = {}
        for number, wire_type, value in message.fields:
            fixed = wire_type in {FIXED32, FIXED64} and isinstance(value, bytes)
            fields.setdefault(number, []).append(int.from_bytes(value, "little") if fixed else value)  # type: ignore[arg-type]
        entries.append(fields)
    return entries


def _only(path: Path, kind: str) -> Message:
    """Return the first message of an image."""
    messages = framing.read(path, kind)
    if not messages:
        raise ImageError(f"the image {os.fspath(path)} is empty")
    return messages[0]


def inventory(images_dir: Path) -> Inventory:
    """
    Return the inventory of a directory of images.

    Args:
        images_dir: The directory of the images.

    Raises:
        ImageError: The inventory is missing or damaged.
    """
    fields = _only(os.path.join(images_dir, "inventory.img"), "inventory")
    return Inventory(fields.number(1, 0), fields.text(13), fields.number(8, 0) if fields.has(8) else None)


def process_tree(images_dir: Path) -> list[Process]:
    """
    Return the dumped processes, the root first.

    Args:
        images_dir: The directory of the images.

    Raises:
        ImageError: An image is missing or damaged.
    """
    found = []
    for fields in framing.read(os.path.join(images_dir, "pstree.img"), "pstree"):
        pid = fields.number(1, 0)
        threads = tuple(fields.numbers(5))
        core = framing.read(os.path.join(images_dir, f"core-{pid}.img"), "core")
        name = core[0].message(3).text(6) if core else ""
        found.append(Process(pid, fields.number(2, 0), fields.number(3, 0), fields.number(4, 0), threads, name))
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
    entries = framing.read(os.path.join(images_dir, "files.img"), "files")
    return {file.id: file for file in map(_open_file, entries)}


def descriptors(images_dir: Path, pid: int) -> list[Descriptor]:
    """
    Return the descriptors of a process, by number.

    Args:
        images_dir: The directory of the images.
        pid: The process.

    Raises:
        ImageError: An image is missing or damaged.
    """
    known = files(images_dir)
    table = _only(os.path.join(images_dir, f"ids-{pid}.img"), "ids").number(2, 0)
    found = []
    for fields in framing.read(os.path.join(images_dir, f"fdinfo-{table}.img"), "fdinfo"):
        file_id = fields.number(1, 0)
        file = known.get(file_id) or OpenFile(file_id, _file_kind(fields.number(3, 0)), "")
        found.append(Descriptor(fields.number(4, 0), file))
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
    fields = _only(os.path.join(images_dir, f"mm-{pid}.img"), "mm")
    return [_mapping(Message.parse(area), known) for area in fields.all_bytes(14)]


def saved_memory(images_dir: Path, pid: int) -> int:
    """
    Return how many bytes of a process's memory these images contain, without those in parent images.

    Args:
        images_dir: The directory of the images.
        pid: The process.

    Raises:
        ImageError: The image is missing or damaged.
    """
    pages = 0
    for fields in framing.read(os.path.join(images_dir, f"pagemap-{pid}.img"), "pagemap")[1:]:
        flags = fields.number(4, 0) if fields.has(4) else (0 if fields.number(3, 0) else _PE_PRESENT)
        if flags & _PE_PRESENT:
            pages += fields.number(5, 0) if fields.has(5) else fields.number(2, 0)
    return pages * _PAGE_SIZE


def _stats(path: str, part: int, names: dict[int, str]) -> dict[str, int]:
    fields = _only(path, "stats").message(part)
    return {name: fields.number(key) for key, name in names.items() if fields.has(key)}


def _mapping(area: Message, known: dict[int, OpenFile]) -> Mapping:
    status = area.number(7, 0)
    kind = next((name for bit, name in _VMA_KINDS if status & bit), "other")
    if area.number(6, 0) & _MAP_GROWSDOWN:
        kind = "stack"
    # For mapped files this field holds the id of the file (criu/files-reg.c, open_vma).
    file = known.get(area.number(4, 0)) if status & _VMA_FILE else None
    return Mapping(
        start=area.number(1, 0),
        end=area.number(2, 0),
        protection=area.number(5, 0),
        flags=area.number(6, 0),
        kind=kind,
        path=file.name if file else "",
        offset=area.number(3, 0) if file else 0,
    )


def _open_file(fields: Message) -> OpenFile:
    kind, file_id = fields.number(1, 0), fields.number(2, 0)
    if kind == _REG:
        regular = fields.message(3)
        size = regular.number(8, 0) if regular.has(8) else None
        return OpenFile(file_id, "file", regular.text(6), size, regular.number(3, 0))
    if kind == _INET:
        return OpenFile(file_id, _file_kind(kind), _inet_name(fields.message(4)))
    if kind == _UNIX:
        name = fields.message(16).text(11)
        return OpenFile(file_id, _file_kind(kind), name.rstrip("\0").replace("\0", "@", 1))
    return OpenFile(file_id, _file_kind(kind), "")


def _inet_name(entry: Message) -> str:
    import socket

    family = entry.number(3, 0)
    ends = []
    for addresses, port in ((11, 7), (12, 8)):
        words = entry.numbers(addresses)
        raw = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
        size = 4 if family == socket.AF_INET else 16
        address = socket.inet_ntop(family, raw[:size]) if len(raw) >= size else "?"
        ends.append(f"[{address}]:{entry.number(port, 0)}" if ":" in address else f"{address}:{entry.number(port, 0)}")
    return ends[0] if entry.number(8, 0) == 0 else f"{ends[0]} -> {ends[1]}"


def _file_kind(kind: int) -> str:
    return _FILE_KINDS[kind] if kind < len(_FILE_KINDS) else "unknown"
