"""Kernels of Jupyter, from their start to the result of a first cell that imports pandas."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.integrations import Case

BIN = Path(sys.executable).parent
PATIENCE = 60


def _prepare(place: Path) -> None:
    os.environ.update(JUPYTER_DATA_DIR=str(place / "data"), IPYTHONDIR=str(place / "ipython"))
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    (place / "empty").mkdir(exist_ok=True)  # a module beside the notebook may have the name of one in the snapshot
    command: list[str | Path] = [BIN / "libcriu-py", "kernel", "install", "--name", "warm", "--preload", "pandas"]
    subprocess.run(command, cwd=place / "empty", check=True, stdout=subprocess.DEVNULL)


def _first_cell(place: Path, name: str, *, waits: bool) -> float:
    """Return the seconds until the cell has run; `waits` for wait_for_ready, which ends with 0.2 s of silence."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=name)
    start = time.perf_counter()
    manager.start_kernel(cwd=str(place / "empty"), stderr=subprocess.DEVNULL)
    try:
        client = manager.client()
        client.start_channels()
        if waits:
            client.wait_for_ready(timeout=PATIENCE)
        sent = client.execute("import pandas")
        while True:
            reply = client.get_shell_msg(timeout=PATIENCE)
            if reply["parent_header"].get("msg_id") == sent:
                break
        seconds = time.perf_counter() - start
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        message = f"the cell failed: {reply['content']}"
        raise RuntimeError(message)
    return seconds


CASES = [
    Case(
        "kernel of Jupyter, first cell with pandas",
        3,
        _prepare,
        lambda place: _first_cell(place, "python3", waits=False),
        lambda place: _first_cell(place, "warm", waits=False),
    ),
    Case(
        "the same after jupyter_client's wait_for_ready",
        3,
        _prepare,
        lambda place: _first_cell(place, "python3", waits=True),
        lambda place: _first_cell(place, "warm", waits=True),
    ),
]
