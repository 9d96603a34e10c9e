"""What is tested."""

from __future__ import annotations

import pandas as pd


def total(rows: list[dict[str, int]]) -> int:
    """Return the sum of all amounts."""
    return int(pd.DataFrame(rows)["amount"].sum())
