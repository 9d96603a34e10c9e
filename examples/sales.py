"""
Sum up a CSV file of sales by region, product or month.

The file needs the columns ``date`` (YYYY-MM-DD), ``region``, ``product``,
``units`` and ``unit_price``; ``make_sales_csv.py`` writes one. With ``-`` the
CSV is read from standard input.
"""

from __future__ import annotations

import argparse
import os
import sys

import pandas as pd

COLUMNS = ("date", "region", "product", "units", "unit_price")


class SalesError(Exception):
    """Say in one sentence what is wrong with the input."""


def load(source: str) -> pd.DataFrame:
    """
    Read the sales.

    Args:
        source: Path of a CSV file, or ``-`` for standard input.

    Returns:
        One row per sale, with a column ``revenue`` added.

    Raises:
        SalesError: The file cannot be read or is not a CSV file of sales.
    """
    name = "standard input" if source == "-" else source
    try:
        sales = pd.read_csv(sys.stdin if source == "-" else source)
    except OSError as error:
        message = f"cannot read {name}: {error.strerror or error}"
        raise SalesError(message) from error
    except ValueError as error:  # pandas' parser errors and bad UTF-8 are both
        message = f"{name} is not a CSV file: {str(error).strip()}"
        raise SalesError(message) from error
    missing = [column for column in COLUMNS if column not in sales.columns]
    if missing:
        message = f"{name} has no column {', '.join(missing)}"
        raise SalesError(message)
    if not sales.empty:  # without rows the types are anybody's guess
        check_types(sales, name)
    sales["revenue"] = sales["units"] * sales["unit_price"]
    return sales


def check_types(sales: pd.DataFrame, name: str) -> None:
    """
    Check that each column holds what its name says.

    Args:
        sales: At least one sale.
        name: What to call the file in a message.

    Raises:
        SalesError: A column does not.
    """
    for column in ("units", "unit_price"):
        if not pd.api.types.is_numeric_dtype(sales[column]):
            message = f"{name}: column {column} holds values that are no numbers"
            raise SalesError(message)
    if not pd.api.types.is_string_dtype(sales["date"]):
        message = f"{name}: column date holds values that are no dates"
        raise SalesError(message)


def summarize(sales: pd.DataFrame, by: str, top: int | None) -> pd.DataFrame:
    """
    Group the sales and sum them up.

    Args:
        sales: What ``load`` returned.
        by: ``region``, ``product`` or ``month``.
        top: Keep this many groups, those of the greatest revenue; all by
            default.

    Returns:
        One row per group: months in order of time, anything else and every
        ``top`` by falling revenue.
    """
    key = sales["date"].astype(str).str[:7] if by == "month" else sales[by]
    groups = sales.groupby(key.rename(by), sort=True)
    table = groups.agg(
        sales=("revenue", "size"),
        units=("units", "sum"),
        revenue=("revenue", "sum"),
    )
    total = table["revenue"].sum()
    table["share"] = table["revenue"] / total * 100 if total else 0.0
    if by != "month" or top is not None:
        table = table.sort_values("revenue", ascending=False, kind="stable")
    if top is not None:
        table = table.head(top)
    return table.round({"revenue": 2, "share": 1}).reset_index()


def render(table: pd.DataFrame, form: str) -> str:
    """
    Turn the summary into text that ends with a newline.

    Args:
        table: What ``summarize`` returned.
        form: ``table``, ``csv`` or ``json``.
    """
    if form == "csv":
        return table.to_csv(index=False)
    if form == "json":
        return table.to_json(orient="records", indent=2) + "\n"
    if table.empty:
        return "no sales\n"
    text = table.to_string(
        index=False,
        formatters={
            "sales": "{:,}".format,
            "units": "{:,}".format,
            "revenue": "{:,.2f}".format,
            "share": "{:.1f} %".format,
        },
    )
    return text + "\n"


def positive(text: str) -> int:
    """
    Read the number of groups to keep.

    Args:
        text: What stands on the command line.

    Raises:
        argparse.ArgumentTypeError: It is no whole number above zero.
    """
    if not text.isdecimal() or int(text) == 0:
        message = f"must be a whole number above zero: {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="sales.py",
        description="Sum up a CSV file of sales by region, product or month.",
    )
    parser.add_argument("csv", metavar="CSV", help="file to read, - for stdin")
    parser.add_argument(
        "--by",
        required=True,
        choices=("region", "product", "month"),
        help="what to group by",
    )
    parser.add_argument(
        "--top",
        type=positive,
        metavar="N",
        help="only the N groups of the greatest revenue",
    )
    parser.add_argument(
        "--format",
        default="table",
        choices=("table", "csv", "json"),
        help="how to print it (default: %(default)s)",
    )
    return parser


def main() -> int:
    """
    Print the summary that the command line asks for.

    Returns:
        The exit status: 0, or 1 for input that cannot be used.
    """
    args = build_parser().parse_args()
    try:
        text = render(summarize(load(args.csv), args.by, args.top), args.format)
    except SalesError as error:
        print(f"sales.py: {error}", file=sys.stderr)
        return 1
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, a pager) has seen enough. Python would flush again
        # at exit and complain.
        silence_stdout()
    except OSError as error:
        print(f"sales.py: cannot write: {error.strerror}", file=sys.stderr)
        silence_stdout()
        return 1
    return 0


def silence_stdout() -> None:
    """Send what is still buffered, and flushed at exit, to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
