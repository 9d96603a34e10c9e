"""Mapping the memory of a dump: plan, rewrite and check images, then replace the old ones."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

from libcriu_py.errors import ImageError, SnapshotError
from libcriu_py.images import framing
from libcriu_py.memory import allocators, check, libraries, plan, rewrite
from libcriu_py.memory.memory import PAGE, Memory, processes, wiped_on_fork
from libcriu_py.memory.owners import LIBRARY_FILE, Census, recognise
from libcriu_py.snapshot.manifest import IMAGES, MEMORY, Snapshot, refuse_damaged, refuse_native, write_records
from libcriu_py.snapshot.record import MemoryFile
from libcriu_py.snapshot.staging import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from libcriu_py.memory.plan import Segment
    from libcriu_py.snapshot.record import Launch

KINDS = ("auto", "map", "copy")
WORTH_IT = 1 << 20
"""The least mapped bytes for which a snapshot is rewritten: below, the difference cannot be measured."""


class Mapped(NamedTuple):
    """The result of `map_memory`; `describe` returns what goes into the manifest."""

    kind: str
    """`map` or `copy`."""
    why: str
    key: str | None = None
    size: int = 0
    """Bytes of memory.img."""
    mapped: int = 0
    """Bytes of memory that are mapped, over all processes."""
    copied: int = 0
    """Bytes of memory that are copied at each restore."""
    owners: Mapping[str, int] = {}
    """Mapped bytes by owner."""
    census: Mapping[int, Census] = {}
    """By pid, as passed in; kept for a later `optimize`."""

    def describe(self) -> dict[str, Any]:
        """Return the result as plain data for the manifest."""
        found: dict[str, Any] = {"kind": self.kind, "why": self.why}
        found["census"] = {str(pid): list(blocks) for pid, blocks in self.census.items()}
        if self.kind == "map":
            found |= {"bytes": self.mapped, "copied": self.copied, "owners": dict(self.owners)}
        return found

    def record(self, launch: Launch) -> Launch:
        """Return the launch record with the mapped memory added."""
        if self.key is None:
            return launch
        # A memory.img with code must not be on a file system mounted noexec.
        return launch._replace(
            memory_files=(MemoryFile(MEMORY, self.key, self.size),), maps_code=LIBRARY_FILE in self.owners
        )


class Planned(NamedTuple):
    """What to map of a directory of images."""

    why: str
    segments: Sequence[Sequence[Segment]] = ()
    """Those of each process; empty if nothing is to be done."""
    size: int = 0
    """Of memory.img, in bytes."""
    files: Mapping[int, libraries.File] = {}
    """The regular files of the dump, by id."""


def map_memory(
    images: str, memory_file: str, key: str, *, wanted: str = "auto", census: Mapping[int, Census] | None = None
) -> Mapped:
    """
    Rewrite a directory of images in place if that is safe and worth it; else leave it alone.

    Args:
        images: The directory, which is replaced.
        memory_file: The path of the new `memory.img`, on the same file system.
        key: Its path in the images without the leading slash, by which a restore replaces it (`inherit_fd`).
        wanted: "auto"; "map" to map safe memory even if it is little, and large malloc blocks even if another
            allocator is loaded; "copy" to map nothing.
        census: By pid, what a process's malloc said about its large blocks.

    Returns:
        What was done and why; nothing is mapped if the images are not understood, or writing fails.

    Raises:
        ImageError: Memory that a fork would wipe could not be removed from the images.
        OSError: Writing the images without it failed.
    """
    wiped = wiped_on_fork(images)
    try:
        mapped = _map_memory(images, memory_file, key, wanted, census or {})
    except OSError as error:  # no space for both, for example
        mapped = Mapped("copy", str(error))
    if wiped and mapped.kind == "copy":
        _rewrite_with(images, None, key, lambda memories: Planned("", [[]] * len(memories)))
    return mapped._replace(census=census or {})


def _map_memory(images: str, memory_file: str, key: str, wanted: str, census: Mapping[int, Census]) -> Mapped:
    if wanted == "copy":
        return Mapped("copy", "as asked for")
    try:
        planned, checked = _rewrite_with(
            images, memory_file, key, lambda memories: _plan(images, memories, wanted, census)
        )
    except ImageError as error:
        return Mapped("copy", str(error))
    if checked is None:
        return Mapped("copy", planned.why)
    owners: dict[str, int] = {}
    for segment in (segment for segments in planned.segments for segment in segments):
        owners[segment.owner] = owners.get(segment.owner, 0) + segment.end - segment.start
    return Mapped("map", planned.why, key, planned.size, checked.mapped, checked.copied, owners)


def _rewrite_with(
    images: str, memory_file: str | None, key: str, make_plan: Callable[[Sequence[Memory]], Planned]
) -> tuple[Planned, check.Checked | None]:
    """Rewrite images by a plan, without memory that a fork wipes; do nothing, and return None, without segments."""
    scratch = f"{images}.mapped"
    try:
        with contextlib.ExitStack() as stack:
            memories = [stack.enter_context(Memory(images, pid)) for pid in processes(images)]
            planned = make_plan(memories)
            if not planned.segments:
                return planned, None
            os.mkdir(scratch, 0o700)
            _write(images, scratch, memory_file, key, memories, planned)
            checked = check.same_memory(images, scratch, memory_file, key)
            for memory in memories:
                rewrite.erase(memory)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        if memory_file is not None and os.path.exists(memory_file):
            os.unlink(memory_file)
        raise
    shutil.rmtree(images)
    os.rename(scratch, images)
    return planned, checked


def optimize(path: str | os.PathLike[str], *, wanted: str = "auto") -> Mapped:
    """
    Rewrite a snapshot so that its copies map their memory; it is replaced in one step.

    Args:
        path: The snapshot.
        wanted: As for `map_memory`.

    Returns:
        What was done and why.

    Raises:
        SnapshotError: It is not a snapshot, is damaged, or has mapped memory already.
        OSError: The new snapshot cannot be written.
    """
    snapshot = Snapshot.open(path)
    refuse_native(snapshot, 'its memory is mapped wherever that is safe, unless it was made with memory="copy"')
    if snapshot.memory_key is not None:
        message = f"the memory of {path} is mapped already; make the snapshot anew to change that"
        raise SnapshotError(message)
    refuse_damaged(snapshot)
    with replacing(snapshot) as scratch:
        key = os.path.join(snapshot.path, MEMORY)[1:]
        known = (snapshot.manifest.get("memory") or {}).get("census", {})
        census = {int(pid): Census(*blocks) for pid, blocks in known.items()}
        # Not map_memory: who has asked for it is told of a disk that is full.
        mapped = _map_memory(os.path.join(scratch, IMAGES), os.path.join(scratch, MEMORY), key, wanted, census)
        mapped = mapped._replace(census=census)
        write_records(scratch, mapped.record(snapshot.launch), {**snapshot.manifest, "memory": mapped.describe()})
    return mapped


def _plan(images: str, memories: Sequence[Memory], wanted: str, census: Mapping[int, Census]) -> Planned:
    """Choose what to map; a plan without segments says why nothing is."""
    if os.sysconf("SC_PAGE_SIZE") != PAGE:
        size = os.sysconf("SC_PAGE_SIZE")
        return Planned(f"this kernel has pages of {size} bytes, and memory is mapped with {PAGE} only")
    known = libraries.files(images)
    foreign = allocators.found(known, memories)
    if allocators.owns_heap(foreign):
        return Planned(f"{allocators.describe(foreign)} may own the heap and purge it")
    others = bool(foreign) and wanted == "auto"
    bss = libraries.bss(known, memories)
    without = libraries.memory_images(known)
    whole: set[int] = set()
    if not os.statvfs(images).f_flag & os.ST_NOEXEC:
        # Keep allocators in their files, where the dump of a copy looks for them.
        whole = libraries.small(known, memories, without=[allocator.path for allocator in foreign])
    layout = plan.Layout()
    segments = []
    for memory in memories:
        owned = recognise(memory, census=census.get(memory.pid), others=others, bss=bss, whole=whole, without=without)
        segments.append(layout.place(memory, plan.cut(memory, owned)))
    total = sum(segment.end - segment.start for found in segments for segment in found)
    if not total or (wanted == "auto" and total < WORTH_IT):
        return Planned(f"only {total >> 10} KB are known to be safe to map, which is not worth it")
    why = "the owners of these areas never count on zeros after giving pages back"
    if foreign:
        rest = "what it may own stays copied" if others else "what looks like malloc's is mapped, as asked for"
        why += f"; {allocators.describe(foreign)} is there, and {rest}"
    return Planned(why, segments, layout.size, known)


def _write(
    images: str, target: str, memory_file: str | None, key: str, memories: Sequence[Memory], planned: Planned
) -> None:
    files = framing.read(os.path.join(images, framing.FILES_NAME), "files")
    first = max(rewrite.file_ids(files), default=0) + 1
    ids = range(first, first + len(memories))
    if memory_file is not None:
        _write_content(memory_file, memories, planned)
        files = rewrite.add_files(files, ids, key, planned.size)
    changed = {framing.FILES_NAME}
    for memory, segments, number in zip(memories, planned.segments, ids, strict=True):
        rewrite.write_process(memory, segments, target, number)
        changed |= {f"mm-{memory.pid}.img", memory.pagemap_name, memory.pages_name}
    framing.write(os.path.join(target, framing.FILES_NAME), "files", files)
    rewrite.link_rest(images, target, changed)


def _write_content(memory_file: str, memories: Sequence[Memory], planned: Planned) -> None:
    fd = os.open(memory_file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
    try:
        for memory, segments in zip(memories, planned.segments, strict=True):
            rewrite.write_content(memory, segments, fd, planned.files)
        os.ftruncate(fd, planned.size)
    finally:
        os.close(fd)
