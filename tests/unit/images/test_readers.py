"""Damaged images are refused, whatever the damage."""

from __future__ import annotations

import struct
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, strategies as st

from libcriu_py.errors import ImageError
from libcriu_py.images import readers
from libcriu_py.images.codec import Message
from libcriu_py.images.readers import read_entries

PSTREE = struct.pack("<II", 0x54564319, 0x50273030)
ENTRY = bytes([0x08, 0x96, 0x01, 0x10, 0x00, 0x28, 0x07, 0x28, 0x08])


def image(*entries: bytes, magic: bytes = PSTREE) -> bytes:
    """Build an image file."""
    return magic + b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)


def test_entries_are_read(tmp_path: Path) -> None:
    """Numbers, repeated fields and several entries come out."""
    (tmp_path / "pstree.img").write_bytes(image(ENTRY, b"", ENTRY))
    entries = read_entries(tmp_path / "pstree.img", "pstree")
    assert entries == [{1: [150], 2: [0], 5: [7, 8]}, {}, {1: [150], 2: [0], 5: [7, 8]}]


@pytest.mark.parametrize("length", range(len(image(ENTRY))))
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    """At each length but that of whole entries."""
    path = tmp_path / "pstree.img"
    path.write_bytes(image(ENTRY)[:length])
    if length == len(PSTREE):
        assert read_entries(path, "pstree") == []
        return
    with pytest.raises(ImageError, match="damaged"):
        read_entries(path, "pstree")


def test_another_kind_is_refused(tmp_path: Path) -> None:
    """A good image of the wrong kind is named as that, and a missing one too."""
    (tmp_path / "mm-1.img").write_bytes(image(ENTRY))
    with pytest.raises(ImageError, match="its magic number is 0x50273030, not 0x57492820"):
        readers.memory(tmp_path, 1) if (tmp_path / "files.img").exists() else read_entries(tmp_path / "mm-1.img", "mm")
    with pytest.raises(ImageError, match="No such file"):
        readers.process_tree(tmp_path)


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_crash_the_reader(data: bytes) -> None:
    """They are read, or refused with an ImageError."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "pstree.img"
        path.write_bytes(PSTREE + data)
        try:
            read_entries(path, "pstree")
        except ImageError:
            return
        assert path.exists()


@given(st.dictionaries(st.integers(1, 500), st.integers(0, 2**64 - 1), max_size=10))
def test_numbers_survive(fields: dict[int, int]) -> None:
    """Each 64-bit number is read as it was written."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 0x7F:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    data = b"".join(varint(key << 3) + varint(value) for key, value in fields.items())
    message = Message.parse(data)
    assert {key: message.numbers(key) for key in fields} == {key: [value] for key, value in fields.items()}
