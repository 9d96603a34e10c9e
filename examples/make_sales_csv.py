"""
Write a CSV file of made-up sales; the same seed gives the same bytes.

The columns are ``date,region,product,units,unit_price``. A million rows take about a second and 40 MB.
"""

from __future__ import annotations

import argparse
import random
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADER = "date,region,product,units,unit_price\n"
FIRST_DAY = date(2024, 1, 1)
DAYS = 731  # the two years 2024 (a leap year) and 2025
REGIONS = {"Africa": 7, "Americas": 30, "Asia": 34, "Europe": 24, "Oceania": 5}
PRICES = {
    "anvil": "129.00",
    "bellows": "64.50",
    "chisel": "18.25",
    "drill": "89.90",
    "file": "7.80",
    "hammer": "24.95",
    "plane": "54.00",
    "saw": "32.40",
    "square": "15.60",
    "vice": "110.75",
}
CHUNK = 50_000


def chunks(rows: int, seed: int) -> Iterator[str]:
    """Yield the data lines, at most ``CHUNK`` of them in each string."""
    rng = random.Random(seed)  # noqa: S311 - made-up data, not a secret
    days = [(FIRST_DAY + timedelta(days=n)).isoformat() for n in range(DAYS)]
    # Sales grow over the two years, so that months differ.
    weights = [1.0 + n / DAYS for n in range(DAYS)]
    goods = [f"{name},{{}},{price}" for name, price in PRICES.items()]
    # One string per (product, units) pair, so that a row only needs a choice.
    lines = [g.format(units) for g in goods for units in range(1, 21)]
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        when = rng.choices(days, weights, k=count)
        where = rng.choices(list(REGIONS), list(REGIONS.values()), k=count)
        what = rng.choices(lines, k=count)
        yield "".join(f"{d},{r},{g}\n" for d, r, g in zip(when, where, what, strict=True))


def write(path: Path, rows: int, seed: int) -> None:
    """Write the CSV file with a header line; an existing file is replaced."""
    with path.open("w", encoding="ascii", newline="") as file:
        file.write(HEADER)
        file.writelines(chunks(rows, seed))


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file that the command line asks for, and return the exit status."""
    parser = argparse.ArgumentParser(description="Write a CSV file of made-up sales.")
    parser.add_argument("path", metavar="PATH", type=Path, help="file to write")
    parser.add_argument("--rows", type=int, default=100_000, metavar="N", help="number of sales (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="random seed (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.rows < 0:
        parser.error(f"--rows must not be negative: {args.rows}")
    try:
        write(args.path, args.rows, args.seed)
    except OSError as error:
        print(f"{parser.prog}: cannot write {args.path}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
