"""An array that takes memory: BENCH_MEGABYTES of it, 1024 by default, made when this is imported."""

from __future__ import annotations

import os

import numpy as np

MEGABYTE = 1 << 20

# Numbers that differ: pages of zeros would not be in a snapshot.
BLOCK = np.arange(int(os.environ.get("BENCH_MEGABYTES", "1024")) * MEGABYTE // 8, dtype=np.int64)
