"""
What is left on the tmpfs goes when nobody needs it any more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from libcriu_py import scratch

if TYPE_CHECKING:
    import pytest


def test_what_was_learned_of_others_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of what was learned of the starts of snapshots, most of which are gone, the newest stays; other caches do.
    """
    monkeypatch.setattr(scratch, "_TMPFS", str(tmp_path))
    directory = Path(scratch.private_directory())
    for number in range(100):
        path = directory / f"start-0-0-{number}"
        path.touch()
        os.utime(path, (number, number))
    (directory / "kdat-0-0-0").mkdir()
    scratch.sweep()
    left = {*os.listdir(directory)}
    assert left == {"kdat-0-0-0", *(f"start-0-0-{number}" for number in range(36, 100))}
