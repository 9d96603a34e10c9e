"""A store is told from any other directory before anything in it is removed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libcriu_py import SnapshotError
from libcriu_py.cli import main
from libcriu_py.memory.store import MARKER, Store

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = "0" * 64


@pytest.mark.parametrize("create", [True, False])
def test_directory_of_digests_that_is_no_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, create: bool
) -> None:
    """Its files have names like blocks, and one link: nothing is removed, or added."""
    (tmp_path / BLOCK).write_text("precious")
    with pytest.raises(SnapshotError, match="is no store"):
        Store(tmp_path, create=create)
    for action in ("prune", "list"):
        assert main(["store", action, str(tmp_path)]) == 1
        assert "is no store: it has no .libcriu_py-store" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [BLOCK]


def test_store_is_marked_when_it_is_made(tmp_path: Path) -> None:
    """In a directory that is made, or was empty; then it is pruned."""
    for place in (tmp_path / "new", tmp_path / "empty"):
        if place.name == "empty":
            place.mkdir()
        store = Store(place, create=True)
        assert (place / MARKER).exists()
        (place / BLOCK).touch()
        assert [block.name for block in store.prune()] == [BLOCK]
        assert Store(place).blocks() == []


def test_directory_that_is_empty_is_not_taken_for_a_store(tmp_path: Path) -> None:
    """Only what adds to a store makes one."""
    with pytest.raises(SnapshotError, match="is no store"):
        Store(tmp_path)
