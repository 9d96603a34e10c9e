"""Rewriting images so that memory is mapped, and the check that compares both sets."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from typing import TYPE_CHECKING

import pytest

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import Message
from libcriu_py.memory import check, memory as m, optimize, plan, rewrite
from libcriu_py.memory.memory import Memory
from libcriu_py.memory.owners import Owned
from tests.unit.mapped_images import (
    ANON,
    FILE,
    KEY,
    LIBRARY,
    PAGE,
    UNKNOWN,
    Images,
    Vma,
    page,
    write_process,
    write_rest,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

CODE = Vma(0x100, 4, FILE, prot=5, flags=2, shmid=LIBRARY)
DATA = Vma(0x104, 30, FILE, prot=3, flags=2, shmid=LIBRARY, pgoff=4 * PAGE)
BIG = Vma(0x1000, 400)
OTHER = Vma(0x2000, 40)
STACK = Vma(0x9000, 40, flags=0x122)


def everything_known(memory: Memory, **_: object) -> list[Owned]:
    """Take two areas for known."""
    return [Owned(v.start * PAGE, (v.start + v.pages) * PAGE, kind) for v, kind in ((DATA, "library data"), (BIG, "x"))]


def content(tag: str = "") -> dict[int, bytes]:
    """Return pages of all areas: some holes, short and long."""
    stored = [*range(0x106, 0x118), *range(0x1000, 0x1020), *range(0x1028, 0x1080), *range(0x1100, 0x1190)]
    stored += [*range(0x2000, 0x2010), *range(0x9010, 0x9028)]
    return {number: page(f"{tag if 0x1000 <= number < 0x1004 else ''}{number:x}") for number in stored}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Images]:
    """Write images of processes and map their memory."""
    monkeypatch.setattr(optimize, "recognise", everything_known)
    monkeypatch.setattr(optimize, "WORTH_IT", 0)

    def make(processes: Sequence[dict[int, bytes]] = (content(),), *, wide: bool = True) -> Images:
        before, after = tmp_path / "before", tmp_path / "images"
        for number, pages in enumerate(processes, 1):
            write_process(before, number, [CODE, DATA, BIG, OTHER, STACK], pages, wide=wide, number=number)
        write_rest(before, "/bin/true")
        shutil.copytree(before, after)
        result = optimize.map_memory(str(after), str(tmp_path / "memory.img"), KEY)
        assert result.kind == "map", result.why
        return Images(before, after, tmp_path / "memory.img")

    return make


@pytest.mark.parametrize("wide", [True, False], ids=["64-bit counts", "32-bit counts"])
def test_memory_is_the_same_and_most_is_mapped(images: Callable[..., Images], wide: bool) -> None:  # noqa: FBT001
    """Pages move to memory.img; holes, unknown owners and the stack stay what they were."""
    made = images(wide=wide)
    checked = made.check()
    assert checked.mapped >= (0x12 + 0x20 + 0x58 + 0x90) * PAGE
    assert checked.copied == (0x10 + 0x18) * PAGE
    with Memory(str(made.after), 1) as after:
        mapped = [area for area in after.areas if area.message.number(m.SHMID) not in {0, LIBRARY}]
        assert [(area.start // PAGE, area.end // PAGE) for area in mapped] == [
            (0x106, 0x118),
            (0x1000, 0x1080),
            (0x1100, 0x1190),
        ]
        assert all(UNKNOWN in area.message.fields for area in after.areas)
        assert UNKNOWN in after.mm.fields
        assert all(UNKNOWN in run.message.fields for run in after.runs)
    assert made.memory.stat().st_mode & 0o777 == 0o400
    assert (made.after / "core-1.img").read_bytes() == b"something else"


def test_forked_processes_share_what_is_equal(images: Callable[..., Images]) -> None:
    """A child's equal pages are stored once; those that differ, or that it has not, stay its own."""
    child = content("child ")
    for number in range(0x1040, 0x1044):
        del child[number]
    made = images([content(), child])
    assert made.check().processes == 2
    with Memory(str(made.after), 2) as after:
        assert after.read(0x1040 * PAGE, PAGE) == bytes(PAGE)
        stored = [(run.start // PAGE, run.end // PAGE) for run in after.runs]
    assert (0x1000, 0x1004) in stored
    assert (0x1040, 0x1044) in stored
    first, second = (
        {area.message.number(m.SHMID) for area in Memory(str(made.after), pid).areas} - {0, LIBRARY} for pid in (1, 2)
    )
    assert not first & second


def change_byte(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def change_area(made: Images, change: Callable[[Message], None], place: int) -> None:
    """Change an area of the rewritten images."""
    path = made.after / "mm-1.img"
    (mm,) = framing.read(str(path), "mm")
    areas = [Message.parse(data) for data in mm.all_bytes(m.MM_VMAS)]
    change(areas[place])
    mm.replace_all(m.MM_VMAS, [one.encode() for one in areas])
    path.unlink()
    framing.write(str(path), "mm", [mm])


@pytest.mark.parametrize(
    "number",
    [m.START, m.END, m.PGOFF, m.SHMID, m.PROT, m.FLAGS, m.STATUS, 1000],
    ids=["start", "end", "offset", "file", "prot", "flags", "status", "unknown field"],
)
@pytest.mark.parametrize("place", range(8))
def test_any_other_area_is_found(images: Callable[..., Images], number: int, place: int) -> None:
    """An area, mapped or not, that differs in anything fails the check."""
    made = images()
    made.check()

    def change(area: Message) -> None:
        if number == 1000:
            area.set(1000, b"lost")
        else:
            area.set(number, area.number(number) + PAGE)

    change_area(made, change, place)
    with pytest.raises(ImageError):
        made.check()


@pytest.mark.parametrize("name", ["memory.img", "pages-1.img", "files.img", "core-1.img", "pagemap-1.img"])
def test_any_other_byte_is_found(images: Callable[..., Images], name: str) -> None:
    """A single bit that differs, in memory or in an image, fails the check."""
    made = images()
    path = made.memory if name == "memory.img" else made.after / name
    size = path.stat().st_size
    pristine = path.read_bytes()
    for offset in {0, 12, size // 2, size - 1} if size < PAGE else {0, PAGE + 5, size - 1}:
        path.unlink()  # core-1.img is a hard link to the original
        path.write_bytes(pristine)
        change_byte(path, min(offset, size - 1))
        with pytest.raises(ImageError):
            made.check()


def test_short_pieces_are_mapped_where_they_are_whole_areas(tmp_path: Path) -> None:
    """Two pages that are an area are mapped; two pages of a longer one would be a further area, and are copied."""
    whole, part = Vma(0x3000, 2), Vma(0x4000, 100)
    pages = {number: page(f"{number:x}") for number in (0x3000, 0x3001, 0x4000, 0x4001)}
    write_process(tmp_path / "images", 1, [whole, part], pages)
    owned = [Owned(area.start * PAGE, (area.start + area.pages) * PAGE, "x") for area in (whole, part)]
    with Memory(str(tmp_path / "images"), 1) as memory:
        assert plan.cut(memory, owned) == owned[:1]


def test_a_byte_in_a_hole_is_found(images: Callable[..., Images]) -> None:
    """What was never written to is zeros in memory.img too."""
    made = images()
    with Memory(str(made.after), 1) as after:
        (area,) = [area for area in after.areas if area.start == 0x1000 * PAGE]
    change_byte(made.memory, area.message.number(m.PGOFF) + 0x22 * PAGE)
    with pytest.raises(ImageError, match="differs"):
        made.check()


def test_a_missing_and_an_additional_file_are_found(images: Callable[..., Images]) -> None:
    """The rewritten directory has the same files."""
    made = images()
    (made.after / "more.img").write_bytes(b"")
    with pytest.raises(ImageError, match="other files"):
        made.check()


@pytest.mark.parametrize(("flags", "reason"), [(m.PE_PRESENT | m.PE_PARENT, "parent"), (m.PE_PRESENT | 8, "not known")])
def test_pages_in_another_form_stay_copied(tmp_path: Path, flags: int, reason: str) -> None:
    """Incremental dumps, and whatever a newer CRIU stores pages as, are left alone, and the reason is given."""
    directory = tmp_path / "images"
    write_process(directory, 1, [BIG], {0x1000: page("x")})
    write_rest(directory)
    path = directory / "pagemap-1.img"
    head, entry = framing.read(str(path), "pagemap")
    entry.set(m.PE_FLAGS, flags)
    path.unlink()
    framing.write(str(path), "pagemap", [head, entry])
    before = {name: (directory / name).read_bytes() for name in os.listdir(directory)}
    result = optimize.map_memory(str(directory), str(tmp_path / "memory.img"), KEY)
    assert result.kind == "copy"
    assert reason in result.why
    assert before == {name: (directory / name).read_bytes() for name in os.listdir(directory)}
    assert os.listdir(tmp_path) == ["images"]


def test_a_failed_check_leaves_the_images(
    tmp_path: Path, images: Callable[..., Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the rewritten images turn out to differ, the original ones stay, and nothing else."""
    real = rewrite.copy

    def wrong(source: int, source_offset: int, target: int, target_offset: int, size: int) -> None:
        real(source, source_offset, target, target_offset, size - PAGE)

    monkeypatch.setattr(rewrite, "copy", wrong)
    with pytest.raises(AssertionError, match="differs"):
        images()
    assert sorted(os.listdir(tmp_path)) == ["before", "images"]
    assert (tmp_path / "before" / "mm-1.img").read_bytes() == (tmp_path / "images" / "mm-1.img").read_bytes()


@pytest.mark.forked
def test_no_room_for_the_file_leaves_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where memory.img cannot be written in full, the memory stays copied, and the reason is given."""
    monkeypatch.setattr(optimize, "recognise", everything_known)
    write_process(tmp_path / "images", 1, [CODE, DATA, BIG, OTHER, STACK], content())
    write_rest(tmp_path / "images", "/bin/true")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    # Python ignores the signal that comes with it; the error is as for a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * PAGE, limit))
    result = optimize.map_memory(str(tmp_path / "images"), str(tmp_path / "memory.img"), KEY, wanted="map")
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # else pytest-forked may not write its report
    assert result.kind == "copy"
    assert "File too large" in result.why
    assert os.listdir(tmp_path) == ["images"]
    assert (tmp_path / "images" / "pages-1.img").stat().st_size == len(content()) * PAGE


def test_file_systems_that_cannot_copy(images: Callable[..., Images], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where copy_file_range(2) does not work, the content is read and written."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    assert images().check().mapped


def test_copy_as_asked_for_changes_nothing(tmp_path: Path) -> None:
    """With "copy" the images stay the files that they are."""
    write_process(tmp_path / "images", 1, [BIG], {0x1000: page("x")})
    before = [(entry.name, entry.inode()) for entry in os.scandir(tmp_path / "images")]
    assert optimize.map_memory(str(tmp_path / "images"), str(tmp_path / "m"), KEY, wanted="copy").kind == "copy"
    assert before == [(entry.name, entry.inode()) for entry in os.scandir(tmp_path / "images")]


WIPED = Vma(0x5000, 4, madvice=m.WIPEONFORK | 1 << 16)
KEYS = {0x1FFF: page("before"), **{number: page("a key") for number in (0x5000, 0x5001, 0x5003)}, 0x5004: page("on")}


def _forget(tmp_path: Path, wanted: str) -> Images:
    """Rewrite images with memory that a fork wipes, between other areas that are stored in one run with it."""
    before, after = tmp_path / "before", tmp_path / "images"
    areas = [CODE, DATA, BIG, Vma(0x1FFE, 2), WIPED, Vma(0x5004, 4), STACK]
    write_process(before, 1, areas, {number: data for number, data in content().items() if number < 0x1FFE} | KEYS)
    write_rest(before, "/bin/true")
    shutil.copytree(before, after)
    result = optimize.map_memory(str(after), str(tmp_path / "memory.img"), KEY, wanted=wanted)
    assert result.kind == wanted, result.why
    return Images(before, after, tmp_path / "memory.img")


@pytest.mark.parametrize("wanted", ["copy", "map"])
def test_what_a_fork_wipes_is_taken_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """Its content is in no file any more, the advice stays, and so does all that lies around it."""
    monkeypatch.setattr(optimize, "recognise", everything_known)
    made = _forget(tmp_path, wanted)
    assert b"a key" in (made.before / "pages-1.img").read_bytes()
    assert all(b"a key" not in path.read_bytes() for path in (tmp_path).glob("[im]*/**/*") if path.is_file())
    with Memory(str(made.after), 1) as after:
        (area,) = (area for area in after.areas if area.madvice)
        assert area.message.fields == Memory(str(made.before), 1).areas[4].message.fields
        assert not list(after.pieces(area.start, area.end))
        for number in (0x1FFF, 0x5004):
            assert after.read(number * PAGE, PAGE) == KEYS[number]
    memory_file = str(made.memory) if wanted == "map" else None
    check.same_memory(str(made.before), str(made.after), memory_file, KEY)
    with pytest.raises(ImageError, match="memory that a fork wipes would be restored"):
        check.same_memory(str(made.before), str(made.before), None, KEY)


def test_what_a_fork_wipes_is_overwritten_before_its_file_goes(tmp_path: Path) -> None:
    """Whoever has criu's own file open finds no key there; a file that another snapshot has too is left alone."""
    for shared in (False, True):
        images = tmp_path / f"images{shared}"
        write_process(images, 1, [WIPED], {0x5001: page("a key")})
        write_rest(images, "/bin/true")
        if shared:
            os.link(images / "pages-1.img", tmp_path / "other")
        with (images / "pages-1.img").open("rb") as file:
            optimize.map_memory(str(images), str(tmp_path / "m"), KEY, wanted="copy")
            assert (b"a key" in file.read()) == shared


def test_what_a_fork_wipes_must_be_taken_out(tmp_path: Path) -> None:
    """Where it cannot be, there is no snapshot."""
    images = tmp_path / "images"
    write_process(images, 1, [WIPED], {0x5001: page("a key")})
    with pytest.raises(ImageError, match=r"files\.img"):
        optimize.map_memory(str(images), str(tmp_path / "m"), KEY, wanted="copy")
    assert os.listdir(tmp_path) == ["images"]


def test_special_areas_are_never_mapped(images: Callable[..., Images]) -> None:
    """The check refuses a mapping in the place of locked, shared or growing memory."""
    made = images()
    for flags, status in ((0x2022, ANON), (0x122, ANON), (0x21, 0x101)):
        path = made.before / "mm-1.img"
        (mm,) = framing.read(str(path), "mm")
        areas = [Message.parse(data) for data in mm.all_bytes(m.MM_VMAS)]
        areas[2].set(m.FLAGS, flags)
        areas[2].set(m.STATUS, status)
        mm.replace_all(m.MM_VMAS, [one.encode() for one in areas])
        path.unlink()
        framing.write(str(path), "mm", [mm])
        with pytest.raises(ImageError):
            made.check()
