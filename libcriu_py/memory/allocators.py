"""
Finding allocators other than glibc's and CPython's in the files that the processes of a dump had mapped.

Many packages link one into their extension modules, often without visible symbols. But each allocator has the texts of
its messages and settings.
"""

from __future__ import annotations

import functools
import mmap
import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.linux.maps import mapped_ranges
from libcriu_py.linux.search import Search
from libcriu_py.memory import libraries

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from libcriu_py.memory.memory import Memory

_TEXTS = {
    "jemalloc": (b"<jemalloc>", b"MALLOC_CONF"),
    "mimalloc": (b"mimalloc: ", b"MIMALLOC_"),
    "tcmalloc": (b"TCMALLOC_", b"tcmalloc: "),
    "Go": (b"\xff Go buildinf:", b".note.go.buildid"),
    "rpmalloc": (b"rpmalloc",),
    "snmalloc": (b"snmalloc",),
    "Scudo": (b"SCUDO_OPTIONS",),
    "oneTBB's allocator": (b"TBBMALLOC:", b"TBB_MALLOC_"),
    "the allocator of a Java virtual machine": (b"JNI_CreateJavaVM",),
}
_SEARCH = Search([text for texts in _TEXTS.values() for text in texts])
_OWN_HEAP = {"tcmalloc", "unknown"}
"""Allocators that use sbrk(2), as glibc's heap does (gperftools, src/system-alloc.cc)."""

_MM_ENV_START, _MM_ENV_END = 10, 11  # CRIU's images/mm.proto
_SECTIONS = (b".rodata", b".dynstr", b".data", b".go.buildinfo", b".lrodata")
_ELF64 = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")


class Allocator(NamedTuple):
    """An allocator, and the file that contains it."""

    name: str
    path: str


def found(files: Mapping[int, libraries.File], memories: Sequence[Memory]) -> list[Allocator]:
    """
    Find the allocators in the executed files of a dump.

    Args:
        files: The regular files of the dump, by id.
        memories: The memories of its processes.

    Returns:
        The allocators; one named "unknown" for each file that cannot be read any more.
    """
    programs: dict[str, bool] = {}
    for memory in memories:
        idle = _is_without_mimalloc(memory)
        for number in libraries.executed(memory) - libraries.memory_images(files):
            path = files[number].path if number in files else "a file without a name"
            programs[path] = programs.get(path, True) and idle
    return [
        Allocator(name, path)
        for path, idle in sorted(programs.items())
        for name in _in_file(path)
        if not (name == "mimalloc" and idle and _is_python(path))
    ]


def look_ahead(pid: int) -> None:
    """Look at what a process has mapped so far: `found` need not look at it again."""
    for path in {mapped.path for mapped in mapped_ranges(pid) if "x" in mapped.permissions and mapped.inode}:
        _in_file(path)


def owns_heap(allocators: Sequence[Allocator]) -> bool:
    """Return whether an allocator may use [heap]."""
    return any(allocator.name in _OWN_HEAP for allocator in allocators)


def describe(allocators: Sequence[Allocator]) -> str:
    """Return the names of allocators and their files, for a message."""
    names = [f"{one.name} ({os.path.basename(one.path)})" for one in allocators]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _is_python(path: str) -> bool:
    """
    Return whether a file is a CPython that uses its built-in mimalloc only on request.

    Free-threaded builds (python3.13t) always use it.
    """
    name = os.path.basename(path)
    return name.startswith(("python3", "libpython3")) and not name.split(".so")[0].endswith("t")


def _is_without_mimalloc(memory: Memory) -> bool:
    start, end = memory.mm.number(_MM_ENV_START), memory.mm.number(_MM_ENV_END)
    return b"PYTHONMALLOC=mimalloc" not in memory.read(start, min(end - start, 1 << 22)).split(b"\0")


def _in_file(path: str) -> Sequence[str]:
    """Return the allocators that a file has; "unknown" if it cannot be read."""
    try:
        status = os.stat(path)
        return _looked_at(path, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    except OSError:
        return ("unknown",)


@functools.cache
def _looked_at(path: str, identity: tuple[int, ...]) -> Sequence[str]:  # noqa: ARG001 - of what was looked at
    with open(path, "rb", buffering=0) as file:
        if not os.fstat(file.fileno()).st_size:
            return ()
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
            there = _SEARCH.find(data, _constants(data))
    return [name for name, texts in _TEXTS.items() if not there.isdisjoint(texts)]


def _constants(data: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Yield the ranges of an ELF file that hold texts; the whole file if its sections cannot be read."""
    whole = (0, len(data))
    if len(data) < _ELF64.size or data[:5] != b"\x7fELF\x02":
        yield whole
        return
    *_, offset, _, _, _, _, size, count, names = _ELF64.unpack_from(data)
    if not count or size != _SECTION.size or offset + size * count > len(data):
        yield whole
        return
    sections = [_SECTION.unpack_from(data, offset + size * number) for number in range(count)]
    table = sections[names][4]
    for section in sections:
        name = data[table + section[0] : table + section[0] + 24].split(b"\0")[0]
        if name.startswith(_SECTIONS) and section[1] != 8:  # SHT_NOBITS
            yield section[4], section[4] + section[5]
