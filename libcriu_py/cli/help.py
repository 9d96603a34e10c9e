"""``libcriu-py help``: print the help of the command, or of a subcommand."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build
from libcriu_py.cli._subcommands import SUBCOMMANDS, module_of

if TYPE_CHECKING:
    import argparse

HELP = "show the help of a subcommand"

EPILOG = """\
examples:
  libcriu-py help
  libcriu-py help snapshot      the same as libcriu-py snapshot --help

exit status:
  0  the help is on stdout
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "help",
        usage="[SUBCOMMAND]",
        description="Print the help of a subcommand, or the list of all.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "subcommand", metavar="SUBCOMMAND", nargs="?", help="the subcommand; default: the whole command"
    )
    return parser


def execute(options: argparse.Namespace) -> int:
    """Print the help."""
    from libcriu_py.cli import _overview

    if options.subcommand is None:
        _overview.build_parser().print_help()
        return 0
    if options.subcommand not in SUBCOMMANDS:
        return _overview.refuse(options.subcommand)
    parser: argparse.ArgumentParser = import_module(module_of(options.subcommand)).build_parser()
    parser.print_help()
    return 0
