"""A function of AWS Lambda."""

from __future__ import annotations

import pandas as pd

squares = pd.Series(range(1000)) ** 2


def handler(event: dict[str, int], _: object) -> dict[str, int]:
    """Answer with a square."""
    return {"square": int(squares[event["number"]])}
