"""The command without a subcommand: its help, its version, and the parser of the whole for shell completion."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, USAGE, Formatter, Parser, did_you_mean, parse
from libcriu_py.cli._subcommands import SUBCOMMANDS, module_of

if TYPE_CHECKING:
    import argparse

EPILOG = """\
examples:
  libcriu-py snapshot -o snap report.py        warm up a program and save it, once
  libcriu-py run snap -- --year 2024           run it as often as you like
  libcriu-py inspect snap                      show what is in there
  libcriu-py snapshot -o py --preload pandas   an interpreter with pandas loaded
  libcriu-py run py script.py                  run any script in it

`libcriu-py help SUBCOMMAND` shows the options, examples and exit statuses of each. docs/settings.md lists all settings.
"""

FIRST = f"""\
{PROG} saves a warmed-up Python program, and starts restored copies of it.

type first:
  libcriu-py doctor                        see what works here
  libcriu-py snapshot report.py            warm up report.py and save it, once, in report.snap
  libcriu-py run report.snap --year 2024   start it, as often as you like

`libcriu-py help` lists all subcommands, `libcriu-py help SUBCOMMAND` explains one.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command, with all subcommands."""
    parser = Parser(
        prog=PROG,
        description="Save a warmed-up Python program, and start restored copies of it.",
        epilog=EPILOG,
        formatter_class=Formatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {version()}")
    subparsers = parser.add_subparsers(title="subcommands", metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        module = import_module(module_of(name))
        described: Parser = module.build_parser()
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
    """Answer --help and --version, say what to type first, reject anything else, and return the exit status."""
    if not argv:
        sys.stdout.write(FIRST)
        return 0
    if not argv[0].startswith("-"):
        return refuse(argv[0])
    options = parse(build_parser(), argv)
    return options if isinstance(options, int) else 0


def refuse(word: str) -> int:
    """Report a word that is no subcommand, with the subcommand that it resembles, and return the exit status."""
    guess = did_you_mean(word, SUBCOMMANDS) or f"; `{PROG} help` lists all"
    sys.stderr.write(f"{PROG}: there is no subcommand {word!r}{guess}\n")
    return USAGE
