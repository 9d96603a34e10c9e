"""Messages and images are changed in places and otherwise stay what they are, whatever else is in them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from libcriu_py.errors import ImageError
from libcriu_py.images import framing
from libcriu_py.images.codec import BYTES, FIXED32, FIXED64, VARINT, Message

if TYPE_CHECKING:
    from pathlib import Path

NUMBERS = st.integers(1, 2**29 - 1)
FIELDS = st.one_of(
    st.tuples(NUMBERS, st.just(VARINT), st.integers(0, 2**64 - 1)),
    st.tuples(NUMBERS, st.just(BYTES), st.binary(max_size=300)),
    st.tuples(NUMBERS, st.just(FIXED64), st.binary(min_size=8, max_size=8)),
    st.tuples(NUMBERS, st.just(FIXED32), st.binary(min_size=4, max_size=4)),
)


@given(st.lists(FIELDS))
def test_any_message_survives(fields: list[tuple[int, int, int | bytes]]) -> None:
    """Fields of all types and numbers, in any order and repeated, are read and written as they were."""
    data = Message(fields).encode()
    assert Message.parse(data).fields == fields
    assert Message.parse(data).encode() == data


@given(st.lists(FIELDS), st.integers(1, 20), st.integers(0, 2**64 - 1))
def test_setting_a_field_leaves_the_others(fields: list[tuple[int, int, int | bytes]], number: int, value: int) -> None:
    """A field that is set has its new value, and every field of another number keeps its own."""
    message = Message(list(fields))
    message.set(number, value)
    assert message.number(number) == value
    assert [item for item in message.fields if item[0] != number] == [item for item in fields if item[0] != number]


@given(st.binary(max_size=200))
def test_garbage_is_an_image_error(data: bytes) -> None:
    """Arbitrary bytes are a message that is written again as it was, or an ImageError; nothing else is raised."""
    try:
        message = Message.parse(data)
    except ImageError:
        return
    assert message.encode() == data


@pytest.mark.parametrize("data", [b"\x08\x80\x00", b"\x88\x00\x01", b"\x0a\x81\x00x"], ids=["value", "key", "size"])
def test_a_number_in_more_bytes_than_needed_is_refused(data: bytes) -> None:
    """An encoding that would not be written again byte for byte is not accepted."""
    with pytest.raises(ImageError, match="canonical"):
        Message.parse(data)


def test_replaced_fields_stay_in_their_place() -> None:
    """Repeated fields are replaced where they were, also when there are more of them, or none, afterwards."""
    message = Message([(1, VARINT, 1), (2, BYTES, b"a"), (2, BYTES, b"b"), (3, VARINT, 3)])
    message.replace_all(2, [b"x", b"y", b"z"])
    assert [number for number, _, _ in message.fields] == [1, 2, 2, 2, 3]
    message.replace_all(2, [])
    assert [number for number, _, _ in message.fields] == [1, 3]


def test_a_missing_number_is_an_image_error() -> None:
    """A field that CRIU always writes and that is not there is told, not guessed."""
    with pytest.raises(ImageError, match="field 7"):
        Message().number(7)
    assert Message().number(7, 5) == 5


def test_images_are_written_as_they_were_read(tmp_path: Path) -> None:
    """An image is its magic numbers and its messages, each with its size in front."""
    messages = [Message([(1, VARINT, 5), (99, BYTES, b"later")]), Message()]
    framing.write(str(tmp_path / "one.img"), "mm", messages)
    found = framing.read(str(tmp_path / "one.img"), "mm")
    assert [message.fields for message in found] == [message.fields for message in messages]
    framing.write(str(tmp_path / "two.img"), "mm", found)
    assert (tmp_path / "one.img").read_bytes() == (tmp_path / "two.img").read_bytes()
    assert (tmp_path / "two.img").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("keep", [0, 7, 10, 13])
def test_a_cut_off_image_is_refused(tmp_path: Path, keep: int) -> None:
    """An image that ends within its head, a size or a message is an ImageError."""
    path = tmp_path / "one.img"
    framing.write(str(path), "mm", [Message([(1, BYTES, b"12345")])])
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ImageError):
        framing.read(str(path), "mm")


def test_an_image_of_another_kind_is_refused(tmp_path: Path) -> None:
    """The magic number says what an image is, not its name."""
    framing.write(str(tmp_path / "mm-1.img"), "pagemap", [])
    with pytest.raises(ImageError, match="kind"):
        framing.read(str(tmp_path / "mm-1.img"), "mm")


def test_a_fifo_is_no_image(tmp_path: Path) -> None:
    """Nobody writes to it, and nobody waits for that."""
    os.mkfifo(tmp_path / "mm-1.img")
    with pytest.raises(ImageError, match="cut off"):
        framing.read(str(tmp_path / "mm-1.img"), "mm")


def test_an_image_of_any_size_is_refused(tmp_path: Path) -> None:
    """Instead of being read to its end, which takes all memory."""
    path = tmp_path / "mm-1.img"
    framing.write(str(path), "mm", [])
    os.truncate(path, 1 << 40)
    with pytest.raises(ImageError, match="has more than"):
        framing.read(str(path), "mm")
