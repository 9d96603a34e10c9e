"""What is mapped is written in blocks as large as the largest folio."""

from __future__ import annotations

import errno
import os
import random
from typing import TYPE_CHECKING

import pytest

from libcriu_py.memory.blocks import BLOCK, BlockWriter
from libcriu_py.memory.memory import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 5 * BLOCK


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """Open a file of random bytes."""
    path = tmp_path / "source"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """Open an empty file."""
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("seed", range(20))
def test_each_piece_comes_to_its_place(source: int, target: int, seed: int) -> None:
    """Whatever the pieces and the holes between them, what was not taken is zeros."""
    dice = random.Random(seed)
    content = os.pread(source, SIZE, 0)
    expected = bytearray(SIZE)
    writer = BlockWriter(target)
    at = dice.choice((0, PAGE, 3 * BLOCK))
    while at < SIZE:
        size = min(SIZE - at, PAGE * dice.choice((1, 2, 17, 511, 512, 513, 1100)))
        place = dice.randrange((SIZE - size) // PAGE + 1) * PAGE
        writer.copy(source, place, at, size)
        expected[at : at + size] = content[place : place + size]
        at += size + PAGE * dice.choice((0, 0, 1, 64, 65, 300, 600))
    writer.flush()
    os.ftruncate(target, SIZE)
    assert os.pread(target, SIZE, 0) == expected


def test_long_holes_stay_holes(source: int, target: int) -> None:
    """Zeros that nobody stored take no space, unless they are few."""
    writer = BlockWriter(target)
    writer.copy(source, 0, 0, PAGE)
    writer.copy(source, 0, 100 * PAGE, PAGE)
    writer.copy(source, 0, 110 * PAGE, PAGE)
    writer.copy(source, 0, 4 * BLOCK, PAGE)
    writer.flush()
    data = []
    at = 0
    while at < os.fstat(target).st_size:
        start = os.lseek(target, at, os.SEEK_DATA)
        at = os.lseek(target, start, os.SEEK_HOLE)
        data.append((start, at))
    assert data == [(0, PAGE), (100 * PAGE, 111 * PAGE), (4 * BLOCK, 4 * BLOCK + PAGE)]


def test_a_source_that_ends_early_is_an_error(source: int, target: int) -> None:
    """A damaged pages file does not become zeros."""
    writer = BlockWriter(target)
    with pytest.raises(OSError, match="ends early") as caught:
        writer.copy(source, SIZE - PAGE, 0, 2 * PAGE)
    assert caught.value.errno == errno.EIO
