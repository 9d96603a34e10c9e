"""Several texts, or numbers, at once are found exactly where Python finds them one by one."""

from __future__ import annotations

import mmap
import random
import struct
from typing import TYPE_CHECKING

from libcriu_py.linux.search import Search, find_words

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = [b"<jemalloc>", b"mimalloc: ", b"rpmalloc", b"snmalloc", b"\xff Go buildinf:", b"aaaaaaaa", b"aaaaaaab"]


def test_finds_what_is_there(tmp_path: Path) -> None:
    """At any place, also at the ends of parts, which a text does not cross."""
    chance = random.Random(3)
    search = Search(TEXTS)
    for _ in range(300):
        data = bytearray(chance.choices(b"am<: loc\xff\0", k=chance.randint(8, 400)))
        for _ in range(chance.randint(0, 3)):
            text = chance.choice(TEXTS)
            at = chance.randint(0, len(data))
            data[at:at] = text
        parts = [sorted((chance.randint(0, len(data)), chance.randint(0, len(data) + 9))) for _ in range(2)]
        path = tmp_path / "data"
        path.write_bytes(data)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            found = search.find(mapped, [(start, end) for start, end in parts])
        assert found == {text for text in TEXTS if any(text in data[start:end] for start, end in parts)}


def test_finds_numbers_of_a_range() -> None:
    """Aligned ones, those at both ends too, and more than there is room for at first."""
    numbers = range(0x7F0000000000, 0x7F0000100000, 0x1000)
    chance = random.Random(5)
    choices = [*numbers[:2], numbers[-1], numbers[-1] + 0x1000, numbers[0] - 0x1000, numbers[0] + 8, 0, 2**64 - 1]
    words = chance.choices(choices, k=700)
    data = struct.pack("<700Q", *words)
    found = find_words(data, 80, len(data) - 80, numbers)
    assert found == [8 * place for place in range(10, 690) if words[place] in numbers]
    assert find_words(data, 0, len(data), range(0)) == []
    assert find_words(data, 8, 8, numbers) == []
