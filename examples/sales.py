"""
Sum up a CSV file of sales by region, product or month.

The file needs the columns ``date`` (YYYY-MM-DD), ``region``, ``product``, ``units`` and ``unit_price``;
``make_sales_csv.py`` writes one. ``-`` stands for standard input.
"""

from __future__ import annotations

import argparse
import os
import sys

import pandas as pd

COLUMNS = ("date", "region", "product", "units", "unit_price")


class SalesError(Exception):
    """An error in the input, described in one sentence."""


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
    except ValueError as error:  # includes pandas' parser errors and invalid UTF-8
        message = f"{name} is not a CSV file: {str(error).strip()}"
        raise SalesError(message) from error
    missing = [column for column in COLUMNS if column not in sales.columns]
    if missing:
        message = f"{name} has no column {', '.join(missing)}"
        raise SalesError(message)
    if not sales.empty:  # without rows, pandas cannot know the types
        check_types(sales, name)
    sales["revenue"] = sales["units"] * sales["unit_price"]
    return sales


def check_types(sales: pd.DataFrame, name: str) -> None:
    """Raise `SalesError` unless each column has values of its type; the name is that of the file."""
    for column in ("units", "unit_price"):
        if not pd.api.types.is_numeric_dtype(sales[column]):
            message = f"{name}: column {column} has values that are not numbers"
            raise SalesError(message)
    if not pd.api.types.is_string_dtype(sales["date"]):
        message = f"{name}: column date has values that are not dates"
        raise SalesError(message)


def summarize(sales: pd.DataFrame, by: str, top: int | None) -> pd.DataFrame:
    """
    Group the sales and sum them up.

    Args:
        sales: What ``load`` returned.
        by: ``region``, ``product`` or ``month``.
        top: How many groups to keep, those with the highest revenue; None for all.

    Returns:
        One row per group: months in order, if all are kept; otherwise by falling revenue.
    """
    key = sales["date"].astype(str).str[:7] if by == "month" else sales[by]
    groups = sales.groupby(key.rename(by), sort=True)
    table = groups.agg(sales=("revenue", "size"), units=("units", "sum"), revenue=("revenue", "sum"))
    total = table["revenue"].sum()
    table["share"] = table["revenue"] / total * 100 if total else 0.0
    if by != "month" or top is not None:
        table = table.sort_values("revenue", ascending=False, kind="stable")
    if top is not None:
        table = table.head(top)
    return table.round({"revenue": 2, "share": 1}).reset_index()


def render(table: pd.DataFrame, form: str) -> str:
    """Return the summary as text in one of the forms table, csv or json."""
    if form == "csv":
        return table.to_csv(index=False)
    if form == "json":
        return table.to_json(orient="records", indent=2) + "\n"
    if table.empty:
        return "no sales\n"
    forms = {"sales": "{:,}", "units": "{:,}", "revenue": "{:,.2f}", "share": "{:.1f} %"}
    return table.to_string(index=False, formatters={name: form.format for name, form in forms.items()}) + "\n"


def positive(text: str) -> int:
    """Return a number from the command line, which must be above zero."""
    if not text.isdecimal() or int(text) == 0:
        message = f"must be a whole number above zero: {text!r}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(prog="sales.py", description="Sum up sales by region, product or month.")
    parser.add_argument("csv", metavar="CSV", help="file to read, - for stdin")
    parser.add_argument("--by", required=True, choices=("region", "product", "month"), help="what to group by")
    parser.add_argument("--top", type=positive, metavar="N", help="only the N groups with the highest revenue")
    forms = ("table", "csv", "json")
    parser.add_argument("--format", default="table", choices=forms, help="output format (default: %(default)s)")
    return parser


def main() -> int:
    """Print the summary that the command line asks for, and return the exit status."""
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
        # The reader (head, a pager) has closed the pipe; Python would flush again at exit and complain.
        silence_stdout()
    except OSError as error:
        print(f"sales.py: cannot write: {error.strerror}", file=sys.stderr)
        silence_stdout()
        return 1
    return 0


def silence_stdout() -> None:
    """Redirect output that is still buffered to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
