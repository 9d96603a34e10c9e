"""Group a small table with pandas."""

from __future__ import annotations

import io

import pandas as pd

SALES = """region,units,price
Asia,3,2.5
Europe,1,4.0
Asia,2,1.5
"""


def main() -> None:
    """Read the table, group it and print the sums."""
    table = pd.read_csv(io.StringIO(SALES))
    table["revenue"] = table["units"] * table["price"]
    sums = table.groupby("region")["revenue"].sum()
    print("ready", sums.to_dict(), flush=True)


if __name__ == "__main__":
    main()
