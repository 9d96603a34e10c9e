"""
The framing of messages in an image file: magic numbers, then each message after its size.

See CRIU's criu/image.c (`write_img_head`, img_raw_size) and criu/protobuf.c (`pb_write_one`).
"""

from __future__ import annotations

import os
import stat
import struct

from libcriu_py.errors import ImageError
from libcriu_py.images.codec import Message

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
"""From criu/include/magic.h, by kind of image."""
FILES_NAME = "files.img"
"""The image of open and mapped files."""

_LARGEST = 1 << 28
"""Bytes; larger images are damaged: none of these kinds holds memory."""
_SIZE = struct.Struct("<I")
_HEAD = struct.Struct("<II")


def read(path: str | os.PathLike[str], kind: str) -> list[Message]:
    """
    Return the messages of an image.

    Args:
        path: The file.
        kind: The required kind: "core", "fdinfo", "files", "ids", "inventory", "mm", "pagemap", "pstree" or "stats".

    Raises:
        ImageError: The image is missing, of another kind, damaged, or holds more than messages.
    """
    try:
        # A FIFO in the place of an image must not make us wait.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(fd, "rb") as file:
            data = file.read(_LARGEST + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    except OSError as error:
        raise ImageError(f"cannot read the image {os.fspath(path)}: {error.strerror}") from error
    try:
        return _messages(data, _MAGIC[kind])
    except ImageError as error:
        raise ImageError(f"the image {os.fspath(path)} is damaged, or is not of the kind {kind}: {error}") from None


def _messages(data: bytes, magic: int) -> list[Message]:
    if len(data) < _HEAD.size:
        raise ImageError("it is cut off")
    if len(data) > _LARGEST:
        raise ImageError(f"it has more than {_LARGEST} bytes")
    found, following = _HEAD.unpack_from(data)
    place = _SIZE.size  # images of version 1.0 have one magic number
    if found in {_COMMON_MAGIC, _SERVICE_MAGIC}:
        found, place = following, _HEAD.size
    if found != magic:
        raise ImageError(f"its magic number is {found:#x}, not {magic:#x}")
    messages = []
    while place < len(data):
        begin = place + _SIZE.size
        if begin > len(data):
            raise ImageError("it is cut off")
        (size,) = _SIZE.unpack_from(data, place)
        place = begin + size
        if place > len(data):
            raise ImageError("it is cut off")
        messages.append(Message.parse(data[begin:place]))
    return messages


def write(path: str, kind: str, messages: list[Message]) -> None:
    """
    Write an image to a new file of mode 0600.

    Args:
        path: The file.
        kind: The kind of image.
        messages: Its messages.
    """
    parts = [_HEAD.pack(_COMMON_MAGIC, _MAGIC[kind])]
    for message in messages:
        data = message.encode()
        parts += (_SIZE.pack(len(data)), data)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"".join(parts))
