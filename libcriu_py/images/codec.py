"""
Protocol buffer messages, read and written without their descriptions.

This package changes CRIU's images in a few places, and must preserve fields of newer CRIUs that it does not know. So a
message stays what it is on the wire: a list of numbered fields in order.
"""

from __future__ import annotations

from libcriu_py.errors import ImageError

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5
"""Wire types (protobuf.dev, "Encoding")."""

_FIXED = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10
_CUT_OFF = "a message of an image is cut off"


class Message:
    """
    A message: its fields in the order in which they were written.

    Integers are unsigned 64-bit numbers, as on the wire.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: list[tuple[int, int, int | bytes]] | None = None) -> None:
        """Make a message of fields: number, wire type, value."""
        self.fields = [] if fields is None else fields

    @classmethod
    def parse(cls, data: bytes) -> Message:
        """
        Read a message.

        Args:
            data: Its bytes, without a length in front.

        Returns:
            The message; `encode` returns the same bytes.

        Raises:
            ImageError: This is not a message, or `encode` would not return the same bytes.
        """
        return cls(_fields(data))

    def encode(self) -> bytes:
        """Return the bytes of the message."""
        out = bytearray()
        for number, kind, value in self.fields:
            _put_varint(out, number << 3 | kind)
            if isinstance(value, int):
                _put_varint(out, value)
                continue
            if kind == BYTES:
                _put_varint(out, len(value))
            out += value
        return bytes(out)

    def number(self, field: int, default: int | None = None) -> int:
        """
        Return the value of an integer field.

        Raises:
            ImageError: The field is missing and there is no default.
        """
        for number, _, value in self.fields:
            if number == field and isinstance(value, int):
                return value
        if default is None:
            reason = f"an image lacks the field {field} of a message, which CRIU always writes"
            raise ImageError(reason)
        return default

    def has(self, field: int) -> bool:
        """Return whether the message has a field of this number."""
        return any(number == field for number, _, _ in self.fields)

    def numbers(self, field: int) -> list[int]:
        """Return the values of a repeated field of integers."""
        return [value for number, _, value in self.fields if number == field and isinstance(value, int)]

    def message(self, field: int) -> Message:
        """Return the message in a field; an empty one if the field is absent."""
        found = self.all_bytes(field)
        return Message.parse(found[-1]) if found else Message()

    def all_bytes(self, field: int) -> list[bytes]:
        """Return the values of a repeated field of texts or messages."""
        return [value for number, _, value in self.fields if number == field and isinstance(value, bytes)]

    def text(self, field: int, default: str = "") -> str:
        """Return the value of a text field."""
        found = self.all_bytes(field)
        return found[-1].decode("utf-8", "surrogateescape") if found else default

    def set(self, field: int, value: int | bytes) -> None:
        """Change the value of a field, or insert it in order of numbers."""
        kind = VARINT if isinstance(value, int) else BYTES
        for place, (number, _, _) in enumerate(self.fields):
            if number == field:
                self.fields[place] = (field, kind, value)
                return
        place = sum(number < field for number, _, _ in self.fields)
        self.fields.insert(place, (field, kind, value))

    def replace_all(self, field: int, values: list[bytes]) -> None:
        """Replace all values of a repeated field."""
        places = [place for place, (number, _, _) in enumerate(self.fields) if number == field]
        kept = [item for item in self.fields if item[0] != field]
        at = places[0] if places else len(kept)
        self.fields = [*kept[:at], *((field, BYTES, value) for value in values), *kept[at:]]

    def drop(self, field: int) -> None:
        """Remove a field if it is there."""
        self.fields = [item for item in self.fields if item[0] != field]

    def copy(self) -> Message:
        """Return a copy with the same fields."""
        return Message(list(self.fields))


def _fields(data: bytes) -> list[tuple[int, int, int | bytes]]:
    # The images of a large program have tens of thousands of fields, mostly with one-byte numbers: read these without a
    # call.
    fields: list[tuple[int, int, int | bytes]] = []
    place, end = 0, len(data)
    while place < end:
        key = data[place]
        place += 1
        if key >= 0x80:
            key, place = _get_varint(data, place - 1)
        kind = key & 7
        if kind in _FIXED:
            size = _FIXED[kind]
        else:
            if place == end:
                raise ImageError(_CUT_OFF)
            size = data[place]
            place += 1
            if size >= 0x80:
                size, place = _get_varint(data, place - 1)
            if kind == VARINT:
                fields.append((key >> 3, VARINT, size))
                continue
            if kind != BYTES:
                reason = f"an image has a field of the unknown wire type {kind}"
                raise ImageError(reason)
        if place + size > end:
            raise ImageError(_CUT_OFF)
        fields.append((key >> 3, kind, data[place : place + size]))
        place += size
    return fields


def _get_varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[place : place + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            if count and not byte:
                reason = "a message of an image is not in the canonical encoding, so it cannot be changed safely"
                raise ImageError(reason)
            return value, place + count + 1
    reason = "a number in an image is cut off or too long"
    raise ImageError(reason)


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
