"""What the subcommands' parsers have in common."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from libcriu_py.errors import CriuError, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROG = "libcriu-py"

USAGE = 2
"""Exit status for a wrong command line."""

MODES = ("auto", "root", "capability", "rootless")

MODE_HELP = "how to be allowed to: %(choices)s; the first that works if not given"


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of descriptions and epilogs, which hold examples and tables."""


def build(name: str, *, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """
    Start the parser of a subcommand.

    Args:
        name: The subcommand.
        usage: What follows its name on the command line.
        description: What it does.
        epilog: Examples and exit statuses.

    Returns:
        A parser without arguments.
    """
    return argparse.ArgumentParser(
        prog=f"{PROG} {name}",
        usage=f"{PROG} {name} {usage}",
        description=description,
        epilog=epilog,
        formatter_class=Formatter,
        allow_abbrev=False,
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace | int:
    """
    Parse without exiting.

    Args:
        parser: The parser.
        argv: The arguments.

    Returns:
        The options, or the exit status after --help was printed or a problem was reported.
    """
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE


def carry_out(parser: argparse.ArgumentParser, argv: Sequence[str], action: Callable[[argparse.Namespace], int]) -> int:
    """
    Parse the arguments, act on them, and report what fails.

    Args:
        parser: The parser of the subcommand.
        argv: Its arguments.
        action: What does the work; gets the options and gives the exit status.

    Returns:
        The exit status.
    """
    options = parse(parser, argv)
    if isinstance(options, int):
        return options
    try:
        return action(options)
    except (CriuError, OSError) as error:
        report(error)
        return 1


def report(error: BaseException) -> None:
    """
    Print an error of this package for people.

    Args:
        error: The exception, whose text is a sentence.
    """
    sys.stderr.write(f"{PROG}: {in_words(error)}\n")


def size(number: float) -> str:
    """
    Write a number of bytes for people.

    Args:
        number: Bytes.

    Returns:
        For example "1.5 MB", by powers of 1000.
    """
    for unit in ("B", "kB", "MB"):
        if number < 1000:  # a power of the unit
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.2f} GB"
