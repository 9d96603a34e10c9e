"""Pools of warm workers: multiprocessing, concurrent.futures, loky and joblib."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integrations import of_pools

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Have snapshots in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize("check", of_pools.CHECKS)
def test_pool(check: str) -> None:
    """Each in a process of its own, which leaves nothing behind and says nothing."""
    code = f"from tests.integrations import of_pools; of_pools.main({check!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=100, cwd=ROOT
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
