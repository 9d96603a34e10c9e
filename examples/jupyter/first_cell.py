"""Print how long kernels take from their start to the result of a first cell."""

from __future__ import annotations

import time

from jupyter_client.manager import KernelManager


def seconds(kernel: str) -> float:
    """Start a kernel, run a cell, and end it."""
    manager = KernelManager(kernel_name=kernel)
    start = time.perf_counter()
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    client.execute("import pandas")
    client.get_shell_msg(timeout=60)
    taken = time.perf_counter() - start
    client.stop_channels()
    manager.shutdown_kernel(now=True)
    return taken


for name in ("python3", "warm"):
    print(f"{name}: {seconds(name):.2f} s")
