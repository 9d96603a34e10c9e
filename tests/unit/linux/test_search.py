"""Several texts at once are found in a file exactly where Python finds them one by one."""

from __future__ import annotations

import mmap
import random
from typing import TYPE_CHECKING

from libcriu_py.linux.search import Search

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
