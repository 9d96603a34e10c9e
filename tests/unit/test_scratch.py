"""
What is left on the tmpfs goes when nobody needs it any more.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from libcriu_py import scratch

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_what_was_learned_of_others_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of what was learned of the starts of snapshots, most of which are gone, the newest stays; other caches do.
    """
    monkeypatch.setattr(scratch, "_TMPFS", str(tmp_path))
    directory = scratch.private_directory()
    for number in range(100):
        path = os.path.join(directory, f"start-0-0-{number}")
        with open(path, "w", encoding="ascii"):
            os.utime(path, (number, number))
    os.mkdir(os.path.join(directory, "kdat-0-0-0"))
    scratch.sweep()
    left = {*os.listdir(directory)}
    assert left == {"kdat-0-0-0", *(f"start-0-0-{number}" for number in range(36, 100))}
