"""``libcriu-py inspect``: show what is in a snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import add_directory, add_json, build, print_json

if TYPE_CHECKING:
    import argparse

HELP = "show what is in a snapshot"

EPILOG = """\
examples:
  libcriu-py inspect snap
  libcriu-py inspect snap --verify                    also check that no file has changed
  libcriu-py inspect snap --json | jq .size.total

exit status:
  0  the snapshot can be restored here
  1  it cannot be read, it does not fit this machine, or (with --verify) a file has changed
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "inspect",
        usage="[--json] [--verify] DIR",
        description="Show what a snapshot is, when and from what it was made, and what is in it.",
        epilog=EPILOG,
    )
    add_directory(parser)
    add_json(parser)
    parser.add_argument(
        "--verify", action="store_true", help="also compare the sums of all files, which reads all of them"
    )
    return parser


def execute(options: argparse.Namespace) -> int:
    """Print what is in a snapshot."""
    from libcriu_py.cli import _contents
    from libcriu_py.program.progress import Progress

    with Progress(f"reading {options.dir}"):
        contents = _contents.read(options.dir, verify=options.verify)
    if options.json:
        print_json(contents)
    else:
        from libcriu_py.cli import _tree

        _tree.show(contents)
    return 1 if any(mismatch["fatal"] for mismatch in contents["mismatches"]) else 0
