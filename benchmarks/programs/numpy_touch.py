"""
Read or write a part of a large array that is there before the checkpoint.

Usage: numpy_touch.py MEGABYTES reads|writes PERCENT
"""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np

from libcriu_py.dump.checkpoint import checkpoint


def main() -> None:
    """Make the array, use a part of it, and print a sum."""
    warm_up = checkpoint() if "LIBCRIU_PY_SNAPSHOT" in os.environ else contextlib.nullcontext()
    with warm_up:
        data = np.arange(int(sys.argv[1]) << 17, dtype=np.int64)
    part = data[: data.size * int(sys.argv[3]) // 100]
    print("ready", flush=True)
    if sys.argv[2] == "writes":
        part += 1
    print("done", int(part.sum()), flush=True)


if __name__ == "__main__":
    main()
