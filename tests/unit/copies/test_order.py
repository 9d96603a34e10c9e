"""Orders, which are written in Python and read in C."""

from __future__ import annotations

import os
import random
import re
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from libcriu_py import RestoredProcess, SnapshotError
from libcriu_py.copies import order
from libcriu_py.copies.order import Order
from libcriu_py.privilege.mode import Privilege

if TYPE_CHECKING:
    from collections.abc import Iterator

CSRC = Path(order.__file__).parents[1] / "csrc"
SNAPSHOT = "/nowhere/snap"
TIMEOUT = 60


@pytest.fixture
def good() -> Iterator[Order]:
    """Return an order of a snapshot that does not exist."""
    made = Order(SNAPSHOT, b"request\0", mode=Privilege.AUTO, pass_fds=[0, 1])
    yield made
    os.close(made.status)


def start(wanted: Order) -> subprocess.CompletedProcess[str]:
    """Start the launcher with an order."""
    return subprocess.run(
        wanted.command, pass_fds=wanted.descriptors, capture_output=True, text=True, check=False, timeout=TIMEOUT
    )


def test_numbers_are_those_of_the_launcher() -> None:
    """Flags, kinds of messages and failures have the same numbers in both languages."""
    text = "".join((CSRC / name).read_text() for name in ("restore/order.h", "restore/problem.h"))
    found = dict(re.findall(r"#define ((?:ORDER|STATUS|FAILURE)_\w+) +(\d+)", text))
    assert len(found) == 14
    for name, number in found.items():
        short = name.removeprefix("ORDER_").removeprefix("STATUS_")
        mine = next(value for ours, value in vars(order).items() if ours.lstrip("_") == short)
        assert (name, mine) == (name, int(number))


def test_a_launcher_tells_why_there_is_no_copy(good: Order) -> None:
    """What is wrong with the snapshot is said by an exception, and nothing on stderr."""
    with good:
        done = start(good)
    assert (done.returncode, done.stdout, done.stderr) == (126, "", "")
    with pytest.raises(SnapshotError, match=f"{SNAPSHOT} is no snapshot: there is no such directory"):
        good.await_restored()


def test_what_could_not_be_restored_leaves_nothing() -> None:
    """Neither the launcher nor a descriptor."""
    before = os.listdir("/proc/self/fd")
    wanted = Order(SNAPSHOT, b"request\0", mode=Privilege.AUTO)
    with pytest.raises(SnapshotError):
        RestoredProcess(wanted, [], streams=(subprocess.PIPE, subprocess.PIPE, subprocess.PIPE))
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def damaged(text: bytes) -> Iterator[bytes]:
    """Damage an order: each way that is known to matter, and some by chance."""
    for size in (0, 1, 35, 36, len(text) - 1):
        yield text[:size]
    yield text + b"\0"
    yield b"X" + text[1:]
    for offset in range(8, 36, 4):
        for number in (0, 1, 2, 250, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF):
            if struct.unpack_from("=I", text, offset)[0] != number:
                yield text[:offset] + struct.pack("=I", number) + text[offset + 4 :]
    yield text.replace(SNAPSHOT.encode() + b"\0", SNAPSHOT.encode() + b"x")
    chance = random.Random(1)
    for _ in range(100):
        changed = bytearray(text)
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield bytes(changed)


def test_damaged_orders_do_no_harm(good: Order) -> None:
    """They are refused, or are orders of something that is not there; nothing crashes, and nothing is started."""
    (file, *_) = good.descriptors
    text = os.pread(file, 1 << 20, 0)
    refused = 0
    with good:
        for wrong in damaged(text):
            os.ftruncate(file, 0)
            os.pwrite(file, wrong, 0)
            done = start(good)
            assert done.returncode in {125, 126}, (wrong, done)
            refused += "the order is of another version of libcriu_py, or damaged" in done.stderr
    assert refused > 50
