"""Facts of a dump are read strictly: what is missing, unknown or cut off is an error."""

from __future__ import annotations

import pytest

from libcriu_py.native import facts
from libcriu_py.native.facts import FactsError


def record(name: str, value: bytes) -> bytes:
    """Return a record as the dump writes it."""
    return b"%s %d\n%s\n" % (name.encode(), len(value), value)


BASIS = {
    "format": b"1",
    "ids": b"10 11",
    "resume": b"1000 2000 3000",
    "slot": b"5",
    "scratch": b"7000 9000",
    "xsave": b"e7 2 240 100 5 440 40",
    "clocks": b"1 2",
    "auxv": b"\0" * 16,
    "status": b"Name:\tx\nUid:\t0\t0\t0\t0\nThreads:\t1\n",
    "stat": b"16 (a b) c) S 1 2 3",
}
FD = record("fd", b"5 2180 103 6 7 0 0 8000 1 0 0 0 0 0 0 /dev/nu ll") + record("fdinfo", b"pos:\t0\nflags:\t0100000\n")
REST = (
    record("thread", b"a 0 0 0 0 py thon")
    + FD
    + record("same", b"3 5")
    + record("area", b"3000 5000 1000")
    + record("area", b"1000 2000 0")
    + record("run", b"3000 4000 1000")
)
ALL = b"".join(record(name, value) for name, value in BASIS.items()) + REST


def test_facts_are_read() -> None:
    """All of them arrive, by address where they have one."""
    found = facts.parse(ALL)
    assert (found.original, found.standing, found.resume, found.slot) == (16, 17, 0x1000, 5)
    assert found.components == ((2, 0x240, 0x100), (5, 0x440, 0x40))
    assert found.stat == ("S", "1", "2", "3")
    assert found.status["Uid"] == "0\t0\t0\t0"
    (thread,) = found.threads
    assert (thread.tid, thread.name) == (10, b"py thon")
    (descriptor,) = found.descriptors
    assert (descriptor.fd, descriptor.close_on_exec, descriptor.link) == (5, 1, b"/dev/nu ll")
    assert found.same == ((3, 5),)
    assert [area.start for area in found.areas] == [0x1000, 0x3000]
    assert (found.children, found.can_compare, found.is_forkable) == (None, True, True)


@pytest.mark.parametrize("name", BASIS)
def test_missing_fact_is_an_error(name: str) -> None:
    """Whatever lacks is told."""
    rest = b"".join(record(other, value) for other, value in BASIS.items() if other != name) + REST
    with pytest.raises(FactsError, match=name):
        facts.parse(rest)


@pytest.mark.parametrize(
    "more",
    [
        record("future", b"1"),
        record("slot", b"6"),
        record("fdinfo", b""),
        record("fd", b"6 2180 103 6 7 0 0 8000 1 0 0 0 0 0 0 /dev/null"),
        record("thread", b"a 0 0 0 py"),
        record("area", b"1000"),
        b"area 99\n1000 2000 0\n",
        b"area x\n",
        b"area",
    ],
)
def test_what_is_not_known_is_an_error(more: bytes) -> None:
    """A record that is unknown, there twice, or cut off is not passed over."""
    with pytest.raises(FactsError):
        facts.parse(ALL + more)


def test_facts_of_another_format_are_an_error() -> None:
    """Another format is refused."""
    with pytest.raises(FactsError, match="format"):
        facts.parse(ALL.replace(record("format", b"1"), record("format", b"2")))
