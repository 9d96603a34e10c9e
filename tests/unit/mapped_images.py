"""Images of small made-up processes, with fields that no CRIU has yet."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory import check, memory as m
from libcriu_py.memory.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PAGE = m.PAGE
ANON = m.REGULAR | m.ANON_PRIVATE
FILE = m.REGULAR | m.FILE_PRIVATE
UNKNOWN = (1000, 2, b"of a newer CRIU")
LIBRARY = 7
POOL = 16 << 10
KEY = "snap/memory.img"


class Vma(NamedTuple):
    """An area: addresses and lengths in pages."""

    start: int
    pages: int
    status: int = ANON
    prot: int = 3
    flags: int = 0x22
    shmid: int = 0
    pgoff: int = 0
    madvice: int = 0


def area(vma: Vma) -> Message:
    """Return the message of an area."""
    values = {
        m.START: vma.start * PAGE,
        m.END: (vma.start + vma.pages) * PAGE,
        m.PGOFF: vma.pgoff,
        m.SHMID: vma.shmid,
        m.PROT: vma.prot,
        m.FLAGS: vma.flags,
        m.STATUS: vma.status,
        m.FD: 1,
    }
    message = Message([(number, 0, value) for number, value in values.items()])
    if vma.madvice:
        message.set(m.MADV, vma.madvice)
    message.fields.append(UNKNOWN)
    return message


def write_process(
    directory: Path,
    pid: int,
    areas: Sequence[Vma],
    pages: Mapping[int, bytes],
    *,
    brk: tuple[int, int] = (0, 0),
    wide: bool = True,
    number: int = 1,
    program: int = 0,
) -> None:
    """
    Write mm, pagemap and pages of a process.

    Args:
        directory: Where to.
        pid: Of the process.
        areas: Its areas.
        pages: The content of each stored page, by page number.
        brk: Where its heap is, in pages.
        wide: Whether counts of pages are in the 64-bit field, as since CRIU 4.2.
        number: Of the pages file.
        program: Number of the program's file.
    """
    directory.mkdir(exist_ok=True)
    mm = Message([(field, 0, 0) for field in range(1, 13)])
    mm.set(m.MM_START_BRK, brk[0] * PAGE)
    mm.set(m.MM_BRK, brk[1] * PAGE)
    mm.set(m.MM_EXE_FILE, program)
    mm.fields += [(m.MM_VMAS, 2, area(vma).encode()) for vma in areas] + [(15, 0, 1), UNKNOWN]
    framing.write(str(directory / f"mm-{pid}.img"), "mm", [mm])
    entries = [Message([(m.PAGES_ID, 0, number)])]
    stored = sorted(pages)
    groups: list[list[int]] = []
    for page in stored:
        if groups and groups[-1][-1] + 1 == page:
            groups[-1].append(page)
        else:
            groups.append([page])
    for group in groups:
        entry = Message([(m.VADDR, 0, group[0] * PAGE), (m.COMPAT_NR_PAGES, 0, 0 if wide else len(group))])
        entry.fields.append((m.PE_FLAGS, 0, m.PE_PRESENT | m.PE_LAZY))
        if wide:
            entry.fields.append((m.NR_PAGES, 0, len(group)))
        entry.fields.append(UNKNOWN)
        entries.append(entry)
    framing.write(str(directory / f"pagemap-{pid}.img"), "pagemap", entries)
    (directory / f"pages-{number}.img").write_bytes(b"".join(pages[page] for page in stored))


def write_rest(directory: Path, library: str = "/usr/lib/libsome.so", size: int | None = None) -> None:
    """
    Write the files image, with one mapped file, and an image that is nobody's business.

    Args:
        directory: Where to.
        library: Path of the mapped file.
        size: Of it, if the image has that.
    """
    fown = Message([(field, 0, 0) for field in range(1, 6)])
    reg = Message([(1, 0, LIBRARY), (2, 0, 0), (3, 0, 0), (5, 2, fown.encode()), (6, 2, library.encode()), UNKNOWN])
    if size is not None:
        reg.set(8, size)
    entry = Message([(1, 0, 1), (2, 0, LIBRARY), (3, 2, reg.encode()), UNKNOWN])
    framing.write(str(directory / "files.img"), "files", [entry])
    (directory / "core-1.img").write_bytes(b"something else")
    (directory / "dump.log").write_text("a log", encoding="utf-8")


def page(text: str) -> bytes:
    """Return a page that begins with a text."""
    return text.encode().ljust(PAGE, b"\xee")


def spread(start: int, data: bytes) -> dict[int, bytes]:
    """Return the pages of a text that begins at a page."""
    data = data.ljust(-(-len(data) // PAGE) * PAGE, b"\0")
    return {start + at // PAGE: data[at : at + PAGE] for at in range(0, len(data), PAGE)}


def chunks(*sizes: int) -> bytes:
    """Return a heap of malloc's chunks."""
    return b"".join(struct.pack("<QQ", 0, size | 1).ljust(size, b"\x77") for size in sizes)


def block(pages: int, lead: int = 0) -> bytes:
    """Return the content of a large chunk of malloc's, whose header is after some bytes where it is aligned."""
    return bytes(lead) + struct.pack("<QQ", lead, (pages * PAGE - lead) | 2).ljust(pages * PAGE - lead, b"\x11")


def pools(index: int, count: int) -> bytes:
    """Return the first pools of an arena of pymalloc's."""
    header = struct.pack("<IIQQQIIII", 3, 0, 0, 0x1000, 0x1000, index, 1, 48 + 32 * 4, POOL - 32)
    return header.ljust(POOL, b"\x22") * count


def library(*segments: tuple[int, int, int], size: int = 24 * PAGE) -> bytes:
    """
    Return an ELF file.

    Args:
        segments: That can be written to: offset in the file, and size there and in memory. Addresses are 1 MB higher.
        size: Of the file.
    """
    header = struct.pack(
        "<5s11xHHIQQQIHHHHHH", b"\x7fELF\x02", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments) + 1, 0, 0, 0
    )
    headers = struct.pack("<IIQQQQQQ", 1, 5, 0, 1 << 20, 0, 4 * PAGE, 4 * PAGE, PAGE)
    for offset, in_file, in_memory in segments:
        headers += struct.pack("<IIQQQQQQ", 1, 6, offset, (1 << 20) + offset, 0, in_file, in_memory, PAGE)
    return (header + headers).ljust(size, b"\x90")


class Images(NamedTuple):
    """Both sets of images, and the file."""

    before: Path
    after: Path
    memory: Path

    def check(self) -> check.Checked:
        """Compare them."""
        return check.same_memory(str(self.before), str(self.after), str(self.memory), KEY)

    def mapped(self, pid: int = 1) -> list[tuple[int, int]]:
        """Return the areas that are mapped from the file, in pages."""
        with Memory(str(self.after), pid) as after:
            files = framing.read(str(self.after / "files.img"), "files")
            ids = check.ids_of(files, KEY)
            areas = [area for area in after.areas if area.message.number(m.SHMID) in ids]
        return [(area.start // PAGE, area.end // PAGE) for area in areas]

    def change_before(self, change: Callable[[list[Message]], None]) -> None:
        """Change the areas that were dumped."""
        path = self.before / "mm-1.img"
        (mm,) = framing.read(str(path), "mm")
        areas = [Message.parse(data) for data in mm.all_bytes(m.MM_VMAS)]
        change(areas)
        mm.replace_all(m.MM_VMAS, [area.encode() for area in areas])
        path.unlink()
        framing.write(str(path), "mm", [mm])
