"""Start plans that tests write by hand."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from libcriu_py.snapshot import launcher as native_launcher
from tests.plans import Plan, write_native

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plans import Start

TIMEOUT = 60


@pytest.fixture(name="launcher", scope="session")
def launcher_fixture() -> str:
    """Return the launcher that was built with the package."""
    path = native_launcher.find()
    assert path is not None, "libcriu-py-run was not built"
    return path


@pytest.fixture(name="start")
def start_fixture(launcher: str, tmp_path: Path) -> Start:
    """Return a function that starts a plan; `command` is the conventional one."""

    def start(
        plan: Plan | bytes,
        memory: bytes,
        *arguments: str,
        options: tuple[str, ...] = ("--no-fallback",),
        command: tuple[str, ...] = ("/bin/echo", "conventionally"),
        **more: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        snap = tmp_path / f"snap{len(list(tmp_path.iterdir()))}"
        write_native(snap, plan, memory, command=command)
        argv = [launcher, *options, str(snap), "--", *arguments]
        done: subprocess.CompletedProcess[bytes] = subprocess.run(
            argv, check=False, capture_output=True, timeout=TIMEOUT, **more
        )
        return done

    return start
