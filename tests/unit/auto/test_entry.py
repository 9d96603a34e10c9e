"""The place of a program in the cache of automatic snapshots."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from libcriu_py.auto.entry import FIRST_REFUSED_FOR, REFUSED_FOR, Entry
from libcriu_py.program.main import Program


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """Return the place of a program."""
    return Entry(str(tmp_path), Program("script", "/nowhere.py"), sys.executable)


def left(entry: Entry) -> float:
    """Return for how many seconds the launcher starts no job."""
    return Path(entry.file("refused")).stat().st_mtime + REFUSED_FOR - time.time()


def test_refusals_last_longer_each_time(entry: Entry) -> None:
    """A full disk or a killed job is soon over; what cannot be dumped is not tried over and over."""
    for expected in (1, 2, 4, 8, 16, 32, 64, 128, 144, 144):
        entry.refuse("the disk is full", [])
        assert left(entry) == pytest.approx(expected * FIRST_REFUSED_FOR, abs=5)
    entry.accept()
    assert entry.refused() is None
    entry.refuse("the disk is full", [])
    assert left(entry) == pytest.approx(FIRST_REFUSED_FOR, abs=5)
    entry.refuse("a copy crashed", [], for_long=True)
    assert left(entry) == pytest.approx(REFUSED_FOR, abs=5)
