"""The command without a subcommand: its help, its version, and the parser of the whole for shell completion."""

from __future__ import annotations

import argparse
from importlib import import_module

from libcriu_py.cli._arguments import PROG, Formatter, parse
from libcriu_py.cli._subcommands import SUBCOMMANDS

EPILOG = """\
examples:
  libcriu-py snapshot -o snap report.py        warm up a program and save it, once
  libcriu-py run snap -- --year 2024           run it as often as you like
  libcriu-py inspect snap                      show what is in there
  libcriu-py snapshot -o py --preload pandas   an interpreter with pandas loaded
  libcriu-py run py script.py                  run any script in it

SUBCOMMAND --help shows the options, examples and exit statuses of each. docs/settings.md lists all settings.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, with all subcommands."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="Save a warmed-up Python program, and start restored copies of it.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version()}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        module = import_module(f"libcriu_py.cli.{name}")
        described: argparse.ArgumentParser = module.build_parser()
        subparsers.add_parser(
            name,
            parents=[described],
            add_help=False,
            help=module.HELP,
            description=described.description,
            epilog=described.epilog,
            formatter_class=Formatter,
        )
    return parser


def version() -> str:
    """Return the version of the package, such as "0.1.0"."""
    from importlib.metadata import PackageNotFoundError, version as installed

    try:
        return installed("libcriu_py")
    except PackageNotFoundError:
        return "(not installed)"


def main(argv: list[str]) -> int:
    """Answer --help and --version, reject anything else, and return the exit status."""
    if not argv:
        build_parser().print_help()
        return 0
    options = parse(build_parser(), argv)
    return options if isinstance(options, int) else 0
