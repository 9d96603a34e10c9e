"""
Proving that rewritten images describe the same memory as criu's, byte for byte.

The check reads both sets of images from disk and knows nothing of the plan. It runs before a rewritten snapshot is
published.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.images.framing import FILES_NAME
from libcriu_py.memory import libraries
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
    MAP_PRIVATE,
    MM_VMAS,
    NR_PAGES,
    PAGE,
    PE_FLAGS,
    PE_PRESENT,
    PGOFF,
    PROT_EXEC,
    SHMID,
    START,
    STATUS,
    VADDR,
    WIPEONFORK,
    Area,
    Memory,
    processes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BLOCK = 1 << 18
_HUGEPAGE = 1 << 14
_MAP_NORESERVE = 0x4000
_COUNTS = {VADDR, COMPAT_NR_PAGES, NR_PAGES}
_MAY_CHANGE = {START, END, PGOFF, SHMID, FLAGS, STATUS, FD, MADV, FDFLAGS}


class Checked(NamedTuple):
    """How much was compared."""

    processes: int
    mapped: int
    """Bytes of mapped memory, over all processes."""
    copied: int
    """Bytes of copied memory, over all processes."""


def same_memory(original: str, rewritten: str, memory_file: str | None, key: str) -> Checked:
    """
    Compare two directories of images.

    Args:
        original: The directory that criu wrote.
        rewritten: The directory of the rewritten images.
        memory_file: The path of `memory.img`; None if nothing may be mapped.
        key: Its path in the images, without the leading slash.

    Returns:
        How much was compared.

    Raises:
        ImageError: They differ in more than where the content of private memory is stored, or the rewritten images
            hold memory that a fork would wipe.
    """
    pids = processes(original)
    _require(pids == processes(rewritten), "the processes differ")
    changed = {FILES_NAME} | {f"mm-{pid}.img" for pid in pids} | {f"pagemap-{pid}.img" for pid in pids}
    fd = os.open(memory_file or os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        ids = _compare_files(original, rewritten, key, os.fstat(fd).st_size)
        files = libraries.files(original)
        _require(memory_file or not ids, "memory would be mapped from a file that is not there")
        mapped = copied = 0
        used: list[int] = []
        for pid in pids:
            with Memory(original, pid) as before, Memory(rewritten, pid) as after:
                _require(before.pages_name == after.pages_name, "the pages are in files of other names")
                changed.add(before.pages_name)
                here, there = _Comparison(before, after, fd, ids, files).run()
                mapped += here
                copied += there
                used += {area.message.number(SHMID) for area in after.areas if area.message.number(SHMID) in ids}
        _require(len(used) == len(set(used)), "two processes share an entry for memory.img, which CRIU misunderstands")
    finally:
        os.close(fd)
    compare_rest(original, rewritten, changed)
    return Checked(len(pids), mapped, copied)


def _require(truth: object, difference: str) -> None:
    if not truth:
        message = f"rewriting the images would have changed the snapshot ({difference}); the memory stays copied"
        raise ImageError(message)


def ids_of(files: list[Message], key: str) -> set[int]:
    """Return the ids of a file in the messages of a files image."""
    found = set()
    for message in files:
        for data in message.all_bytes(3):
            if Message.parse(data).text(6) == "/" + os.fsdecode(key):
                found.add(message.number(2))
    return found


def compare_rest(original: str, rewritten: str, changed: set[str]) -> None:
    """Compare the files of two directories, except those in `changed`."""
    names = set(os.listdir(original))
    _require(names == set(os.listdir(rewritten)), "there are other files")
    for name in names - changed:
        one, other = os.path.join(original, name), os.path.join(rewritten, name)
        _require(os.path.samefile(one, other) or filecmp.cmp(one, other, shallow=False), f"{name} differs")


def _compare_files(original: str, rewritten: str, key: str, size: int) -> set[int]:
    """Compare the files images; return the ids of `memory.img`."""
    before = framing.read(os.path.join(original, FILES_NAME), "files")
    after = framing.read(os.path.join(rewritten, FILES_NAME), "files")
    old, new = after[: len(before)], after[len(before) :]
    _require([m.fields for m in before] == [m.fields for m in old], "an open file differs")
    ids = set()
    for message in new:
        (reg,) = map(message.parse, message.all_bytes(3))
        _require(
            (message.number(1), reg.number(1), reg.text(6), reg.number(8))
            == (1, message.number(2), "/" + os.fsdecode(key), size),
            "the entry for memory.img does not fit it",
        )
        ids.add(message.number(2))
    _require(len(ids) == len(new) and not ids & {m.number(2) for m in before}, "file numbers are used twice")
    return ids


class _Source(NamedTuple):
    """The file that an area mapped."""

    fd: int
    shift: int
    """What to add to an address to get its offset in the file."""


class _Comparison:
    """Compares the memory of one process before and after."""

    def __init__(
        self, before: Memory, after: Memory, fd: int, ids: set[int], files: Mapping[int, libraries.File]
    ) -> None:
        self.before = before
        self.after = after
        self.fd = fd
        self.size = os.fstat(fd).st_size
        self.ids = ids
        self.files = files

    def run(self) -> tuple[int, int]:
        """Compare; return how many bytes are mapped, and how many a restore copies."""
        plain = self.before.mm.copy(), self.after.mm.copy()
        for mm in plain:
            mm.replace_all(MM_VMAS, [])
        _require(plain[0].fields == plain[1].fields, "the description of the memory differs")
        mapped = 0
        for area, piece, start, end in self._parts():
            if self._is_mapped(piece):
                self._compare_mapped(area, piece, start, end)
                mapped += end - start
            else:
                self._compare_copied(area, piece)
        _require(self._outside() == 0, "there are pages outside of all areas")
        self._compare_runs()
        return mapped, sum(run.end - run.start for run in self.after.runs)

    def _is_mapped(self, area: Area) -> bool:
        return bool(area.message.number(SHMID) in self.ids and area.status & FILE_PRIVATE)

    def _parts(self) -> Iterator[tuple[Area, Area, int, int]]:
        """
        Yield for all memory: the area before, the area after, and the range of addresses that they share.

        Both sets cover the same addresses. An area may have become several; and adjacent ones may have become one
        mapping of `memory.img`, except the heap, which brk(2) moves.
        """
        rest = iter(self.after.areas)
        piece: Area | None = None
        at = 0
        for area in self.before.areas:
            # A mapping may span this area and the one before.
            _require(piece is None or area.start == at, "areas differ")
            at = area.start
            while at < area.end:
                if piece is None:
                    piece = next(rest, None)
                    _require(piece is not None and piece.start == at < piece.end, "areas differ")
                if piece is None:  # _require has raised
                    break
                end = min(piece.end, area.end)
                if (at, end) != (piece.start, piece.end):
                    _require(
                        self._is_mapped(piece) and not area.status & HEAP, "areas that must not be one have become one"
                    )
                yield area, piece, at, end
                at = end
                piece = None if end == piece.end else piece
        _require(piece is None and next(rest, None) is None, "there are more areas")

    def _compare_runs(self) -> None:
        """Check that the pagemap entries differ only in where pages start and how many they are."""
        _require(self.before.head.fields == self.after.head.fields, "the pagemap differs")
        for run in self.after.runs:
            origins = list(self.before.runs_within(run.start, run.end))
            if not origins:
                # Zeros in a mapping shared with another process, which has other content there.
                _require(run.message.number(PE_FLAGS) == PE_PRESENT, "pages have appeared")
                continue
            _require(len(origins) == 1 and origins[0].start <= run.start <= run.end <= origins[0].end, "pages differ")
            _require(_but(run.message, _COUNTS) == _but(origins[0].message, _COUNTS), "the pagemap differs")

    def _outside(self) -> int:
        """Return how many stored bytes of the rewritten images are outside all areas."""
        stored = sum(run.end - run.start for run in self.after.runs)
        inside = sum(
            high - low for area in self.after.areas for low, high, _ in self.after.pieces(area.start, area.end)
        )
        return stored - inside

    def _compare_mapped(self, area: Area, piece: Area, start: int, end: int) -> None:
        """Compare a part of an area with the mapping that replaces it."""
        self._compare_kind(area, piece)
        first = piece.message.number(PGOFF)
        _require(first % PAGE == 0 and first + piece.end - piece.start <= self.size, "a mapping ends after its file")
        offset = first - piece.start  # add to an address to get its offset in the file
        at = start
        with self._library(area, start, end) as library:
            for low, high, place in self.before.pieces(start, end):
                self._compare_content(at, low, offset + at, library)
                if any(self.after.pieces(low, high)):
                    self._compare_content(low, high, offset + low, library)
                elif not same_bytes(self.before.fd, place, self.fd, offset + low, high - low):
                    self._differ(low)
                at = high
            self._compare_content(at, end, offset + at, library)

    @contextlib.contextmanager
    def _library(self, area: Area, start: int, end: int) -> Iterator[_Source | None]:
        """Open the file that has the pages of an area that are not stored; yield None if those are zeros."""
        stored = sum(high - low for low, high, _ in self.before.pieces(start, end))
        if not area.status & FILE_PRIVATE or stored == end - start:
            yield None
            return
        number = area.message.number(SHMID)
        _require(number in self.files, "a mapped file is not known")
        with contextlib.ExitStack() as stack:
            try:
                library = stack.enter_context(libraries.opened(self.files[number]))
            except OSError as error:
                message = f"{self.files[number].path} cannot be compared: {error.strerror}; the memory stays copied"
                raise ImageError(message) from error
            source = _Source(library.fd, area.message.number(PGOFF) - area.start)
            _require(end + source.shift - library.size < PAGE, "a library's file is shorter than its mapping")
            yield source

    def _compare_content(self, start: int, end: int, offset: int, library: _Source | None) -> None:
        """Compare a part of a mapping, including pages that are not stored or that override the mapping."""
        for at in range(start, end, _BLOCK):
            size = min(_BLOCK, end - at)
            if self._original_content(at, size, library) != self._mapped_content(at, size, offset + at - start):
                self._differ(at)

    def _original_content(self, at: int, size: int, library: _Source | None) -> bytes:
        """Return the original content at an address: stored pages, those of a library, or zeros."""
        if library is None:
            return self.before.read(at, size)
        return _with_stored(os.pread(library.fd, size, at + library.shift).ljust(size, b"\0"), self.before, at)

    def _differ(self, at: int) -> None:
        _require(False, f"the memory of process {self.before.pid} from {at:#x} on differs")

    def _mapped_content(self, at: int, size: int, offset: int) -> bytes:
        """Return the new content at an address: stored pages override those of the mapping."""
        return _with_stored(os.pread(self.fd, size, offset), self.after, at)

    @staticmethod
    def _compare_kind(area: Area, piece: Area) -> None:
        """Check that a mapping differs from its area only in where the content comes from."""
        _require(_but(area.message, _MAY_CHANGE) == _but(piece.message, _MAY_CHANGE), "an area has changed")
        anonymous = area.flags & MAP_ANONYMOUS
        _require(piece.flags == area.flags & ~MAP_ANONYMOUS, "the flags of an area have changed")
        _require(piece.flags & ~_MAP_NORESERVE == MAP_PRIVATE, "a special area would be mapped")
        _require(not (anonymous and area.prot & PROT_EXEC), "memory with code that no file has would be mapped")
        _require(piece.status & ~FILE_PRIVATE == 1, "an area is of another kind")
        # Ordinary anonymous memory, the heap, or a private file mapping (criu/include/image.h).
        _require(area.status & ~HEAP in ({0x201} if anonymous else {0x41}), "a special area would be mapped")
        _require(not area.madvice & ~_HUGEPAGE and not piece.madvice, "advice on an area would be lost")

    def _compare_copied(self, area: Area, piece: Area) -> None:
        """Check that a part of an area is unchanged."""
        _require(_shifted(area, piece.start, piece.end) == piece.message.fields, "an area has changed")
        if area.madvice & WIPEONFORK:
            _require(not any(self.after.pieces(piece.start, piece.end)), "memory that a fork wipes would be restored")
            return
        stored = _joined(self.before, piece)
        _require(stored == _joined(self.after, piece), "other pages are stored")
        for low, high in stored:
            for at in range(low, high, _BLOCK):
                size = min(_BLOCK, high - at)
                _require(self.before.read(at, size) == self.after.read(at, size), f"the memory at {at:#x} differs")


def _with_stored(content: bytes, memory: Memory, at: int) -> bytes:
    """Overwrite the content of a file with the stored pages, as a restore does."""
    stored = list(memory.pieces(at, at + len(content)))
    if not stored:
        return content
    out = bytearray(content)
    for low, high, _ in stored:
        out[low - at : high - at] = memory.read(low, high - low)
    return bytes(out)


def same_bytes(one: int, place: int, other: int, other_place: int, size: int) -> bool:
    """Compare parts of two files."""
    ours, theirs = bytearray(_BLOCK), bytearray(_BLOCK)
    for at in range(0, size, _BLOCK):
        if size - at < _BLOCK:
            return os.pread(one, size - at, place + at) == os.pread(other, size - at, other_place + at)
        if os.preadv(one, [ours], place + at) != _BLOCK or os.preadv(other, [theirs], other_place + at) != _BLOCK:
            return False
        if ours != theirs:
            return False
    return True


def _but(message: Message, numbers: set[int]) -> list[tuple[int, int, int | bytes]]:
    """Return the fields of a message except those with some numbers."""
    return [item for item in message.fields if item[0] not in numbers]


def _shifted(area: Area, start: int, end: int) -> list[tuple[int, int, int | bytes]]:
    message: Message = area.message.copy()
    message.set(START, start)
    message.set(END, end)
    if area.status & FILE_PRIVATE:
        message.set(PGOFF, message.number(PGOFF) + start - area.start)
    return message.fields


def _joined(memory: Memory, area: Area) -> list[tuple[int, int]]:
    """Return the stored ranges of an area, with adjacent runs joined."""
    joined: list[tuple[int, int]] = []
    for low, high, _ in memory.pieces(area.start, area.end):
        if joined and joined[-1][1] == low:
            joined[-1] = joined[-1][0], high
        else:
            joined.append((low, high))
    return joined
