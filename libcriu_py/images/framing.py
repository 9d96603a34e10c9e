"""
The frame around the messages of an image: magic numbers, then each message with its size in front.

See CRIU's criu/image.c (`write_img_head`, img_raw_size) and criu/protobuf.c (`pb_write_one`).
"""

from __future__ import annotations

import os
import struct

from libcriu_py.errors import ImageError
from libcriu_py.images.wire import Message

COMMON_MAGIC = 0x54564319
MM_MAGIC = 0x57492820
PAGEMAP_MAGIC = 0x56084025
FILES_MAGIC = 0x56303138
PSTREE_MAGIC = 0x50273030
"""Of criu/include/magic.h."""
FILES_NAME = "files.img"
"""Of the image that describes the regular files that are open or mapped."""

_SIZE = struct.Struct("<I")
_HEAD = struct.Struct("<II")


def read(path: str, magic: int) -> list[Message]:
    """
    Read an image.

    Args:
        path: the file.
        magic: what kind of image it is to be.

    Returns:
        Its messages.

    Raises:
        ImageError: it is of another kind, damaged, or holds more than messages.
    """
    with open(path, "rb") as file:
        data = file.read()
    name = os.path.basename(path)
    if len(data) < _HEAD.size or _HEAD.unpack_from(data) != (COMMON_MAGIC, magic):
        reason = f"{path} is not an image of the kind its name says"
        raise ImageError(reason)
    messages = []
    place = _HEAD.size
    while place < len(data):
        if place + _SIZE.size > len(data):
            reason = f"{name} is cut off"
            raise ImageError(reason)
        (size,) = _SIZE.unpack_from(data, place)
        place += _SIZE.size
        if place + size > len(data):
            reason = f"{name} is cut off"
            raise ImageError(reason)
        messages.append(Message.parse(data[place : place + size]))
        place += size
    return messages


def write(path: str, magic: int, messages: list[Message]) -> None:
    """
    Write an image, as a new file of mode 0600.

    Args:
        path: the file.
        magic: the kind of image.
        messages: what it is to hold.
    """
    parts = [_HEAD.pack(COMMON_MAGIC, magic)]
    for message in messages:
        data = message.encode()
        parts += (_SIZE.pack(len(data)), data)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(b"".join(parts))
