"""What is left on the tmpfs goes when nobody needs it any more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from libcriu_py.linux import runtime_dir

if TYPE_CHECKING:
    import pytest


def test_work_directories_of_killed_restores_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A work directory that is older than any restore goes with its files; a new one and criu's caches stay."""
    monkeypatch.setattr(runtime_dir, "_TMPFS", str(tmp_path))
    directory = Path(runtime_dir.private_directory())
    for name in ("work-1-old", "work-2-new", "kdat-0-0-0"):
        (directory / name).mkdir()
        (directory / name / "criu.log").touch()
    long_ago = time.time() - 7200
    for name in ("work-1-old", "kdat-0-0-0"):
        os.utime(directory / name, (long_ago, long_ago))
    runtime_dir.sweep()
    assert {*os.listdir(directory)} == {"kdat-0-0-0", "work-2-new"}
