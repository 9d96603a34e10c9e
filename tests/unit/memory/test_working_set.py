"""Which pages of a working set are copied ahead."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from libcriu_py.memory import working_set
from libcriu_py.memory.memory import PAGE
from libcriu_py.memory.working_set import HUGE, MIN_PAGES, MIN_WRITTEN, Range

if TYPE_CHECKING:
    from pathlib import Path

STEP = HUGE // PAGE
BASE = 0x7F00_0000_0000
"""The address of a huge page."""


def area(start: int, pages: bytes) -> dict[tuple[int, int], bytearray]:
    """Describe one area."""
    return {(start, start + len(pages) * PAGE): bytearray(pages)}


def test_runs_of_pages_become_ranges() -> None:
    """Pages that follow each other are one range; a single one is left to its fault."""
    written = area(BASE + PAGE, b"\0\1\1\0\1\0\1\1\1")
    assert working_set.choose(written) == [
        Range(BASE + 2 * PAGE, 2, huge=False),
        Range(BASE + 7 * PAGE, 3, huge=False),
    ]


def test_much_written_becomes_huge() -> None:
    """2 MB of which most is written to are one range, with the next ones, if they lie at addresses of huge pages."""
    much = bytes([1] * MIN_WRITTEN + [0] * (STEP - MIN_WRITTEN))
    little = bytes([1] * (MIN_WRITTEN - 1) + [0] * (STEP - MIN_WRITTEN + 1))
    written = area(BASE - 3 * PAGE, b"\1\1\1" + much + much + little + much[:-1])
    found = working_set.choose(written)
    assert found[0] == Range(BASE, 2 * STEP, huge=True)
    assert found[1:] == [
        Range(BASE - 3 * PAGE, 3, huge=False),
        Range(BASE + 2 * HUGE, MIN_WRITTEN - 1, huge=False),
        Range(BASE + 3 * HUGE, MIN_WRITTEN, huge=False),
    ]


def test_every_page_is_covered_once() -> None:
    """Whatever was written: ranges do not overlap, stay within their area, and leave out nothing but single pages."""
    chance = random.Random(5)
    for _ in range(50):
        pages = bytes(
            value for _ in range(chance.randrange(1, 60)) for value in [chance.randrange(2)] * chance.randrange(1, 200)
        )
        start = BASE + chance.randrange(STEP) * PAGE
        covered = bytearray(len(pages))
        for item in working_set.choose(area(start, pages)):
            first = (item.start - start) // PAGE
            assert first >= 0
            assert first + item.pages <= len(pages)
            assert not any(covered[first : first + item.pages])
            assert not item.huge or (item.start % HUGE == 0 and item.pages % STEP == 0)
            covered[first : first + item.pages] = b"\1" * item.pages
        missed = bytes(wanted and not have for wanted, have in zip(pages, covered, strict=True))
        # A run of two that a border of a huge page divides is two single pages.
        assert b"\1" * (2 * MIN_PAGES - 1) not in missed


def test_common_pages_of_several_runs() -> None:
    """What one of the runs did not write to is left out; an area that it had not is none."""
    runs = [area(BASE, b"\1\1\0\1") | area(0, b"\1"), area(BASE, b"\0\1\1\1")]
    assert working_set.common(runs) == area(BASE, b"\0\1\0\1") | area(0, b"\0")


def test_written_and_read_again(tmp_path: Path) -> None:
    """The file holds what was written, for its owner only."""
    ranges = [Range(BASE, STEP, huge=True), Range(PAGE, 7, huge=False)]
    path = tmp_path / "working-set"
    working_set.write(str(path), ranges)
    assert working_set.read(str(path)) == ranges
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.stat().st_size == 32
