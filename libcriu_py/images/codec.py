"""
The container and the wire format of CRIU's image files.

A file is a 32-bit number of its kind (two, since version 1.1: a common one
first), then entries, each a 32-bit length and that many bytes of a protobuf
message (criu/image.c, criu/include/magic.h, images/*.proto).  What is needed of
them are a few fields of a few messages, so the wire format is read directly,
and no protobuf library is needed at run time.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from libcriu_py.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = str | os.PathLike[str]
    Fields = dict[int, list[int | bytes]]

__all__ = ["first_entry", "message", "number", "parse", "read_entries", "text"]

_COMMON_MAGIC = 0x54564319
_SERVICE_MAGIC = 0x55105940

_MAGIC = {
    "core": 0x55053847,
    "fdinfo": 0x56213732,
    "files": 0x56303138,
    "ids": 0x54432030,
    "inventory": 0x58313116,
    "mm": 0x57492820,
    "pagemap": 0x56084025,
    "pstree": 0x50273030,
    "stats": 0x57093306,
}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def read_entries(path: Path, kind: str) -> list[Fields]:
    """
    Read an image file.

    Args:
        path: The file.
        kind: The kind it must be of: "core", "fdinfo", "files", "ids",
            "inventory", "mm", "pagemap", "pstree" or "stats".

    Returns:
        The fields of each entry by number; numbers stay unsigned.

    Raises:
        ImageError: It is missing, of another kind, or damaged.
    """
    try:
        with open(path, "rb") as image:
            data = image.read()
    except OSError as error:
        raise ImageError(f"cannot read the image {os.fspath(path)}: {error.strerror}") from error
    try:
        return [parse(entry) for entry in _split(data, _MAGIC[kind])]
    except (ValueError, IndexError, struct.error) as error:
        raise ImageError(f"the image {os.fspath(path)} is damaged, or is no {kind} image: {error}") from error


def first_entry(path: Path, kind: str) -> Fields:
    """
    Read an image file that has one entry.

    Args:
        path: The file.
        kind: The kind it must be of.

    Returns:
        The fields of the entry.

    Raises:
        ImageError: It is missing, of another kind, damaged or empty.
    """
    entries = read_entries(path, kind)
    if not entries:
        raise ImageError(f"the image {os.fspath(path)} is empty")
    return entries[0]


def number(fields: Fields, key: int) -> int:
    """
    Return a numeric field, 0 if it is absent.
    """
    value = fields.get(key, [0])[-1]
    return value if isinstance(value, int) else 0


def text(fields: Fields, key: int) -> str:
    """
    Return a field of text, empty if it is absent.
    """
    value = fields.get(key, [b""])[-1]
    return os.fsdecode(value) if isinstance(value, bytes) else ""


def message(fields: Fields, key: int) -> Fields:
    """
    Return the fields of a message within a message, none if it is absent.

    Raises:
        ImageError: It is damaged.
    """
    value = fields.get(key, [b""])[-1]
    try:
        return parse(value) if isinstance(value, bytes) else {}
    except (ValueError, IndexError) as error:
        raise ImageError(f"an image is damaged: {error}") from error


def _split(data: bytes, magic: int) -> Iterator[bytes]:
    found, following = struct.unpack_from("<II", data)
    position = 4
    if found in {_COMMON_MAGIC, _SERVICE_MAGIC}:
        found, position = following, 8
    if found != magic:
        raise ValueError(f"its number is {found:#x} and not {magic:#x}")
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position)
        position += 4
        if position + length > len(data):
            raise ValueError(f"it ends within the entry at {position}")
        yield data[position : position + length]
        position += length


def parse(data: bytes) -> Fields:
    """
    Read a protobuf message.

    Args:
        data: The message.

    Returns:
        The values of each field by number; numbers stay unsigned.

    Raises:
        ValueError: It is damaged.
        IndexError: It ends too early.
    """
    fields: Fields = {}
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        value: int | bytes
        if key & 7 == _VARINT:
            value, position = _varint(data, position)
        elif key & 7 == _BYTES:
            length, position = _varint(data, position)
            value = data[position : position + length]
            position += length
        elif key & 7 in {_FIXED32, _FIXED64}:
            size = 4 if key & 7 == _FIXED32 else 8
            value = int.from_bytes(data[position : position + size], "little")
            position += size
        else:
            raise ValueError(f"there is no wire type {key & 7}")
        if position > len(data):
            raise ValueError("a field is cut short")
        fields.setdefault(key >> 3, []).append(value)
    return fields


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")
