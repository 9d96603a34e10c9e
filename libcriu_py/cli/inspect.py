"""``libcriu-py inspect``: say what is in a snapshot."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build, carry_out

if TYPE_CHECKING:
    import argparse

HELP = "say what is in a snapshot"

EPILOG = """\
examples:
  libcriu-py inspect snap
  libcriu-py inspect snap --verify                    has a file changed since?
  libcriu-py inspect snap --json | jq .size.total

exit status:
  0  the snapshot is sound and can be restored here
  1  it cannot be read, it does not fit this machine, or with --verify a file has changed
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser.
    """
    parser = build(
        "inspect",
        usage="[--json] [--verify] DIR",
        description="Show what a snapshot is, when and of what it was made, and what is in it.",
        epilog=EPILOG,
    )
    directory = parser.add_argument("dir", metavar="DIR", help="the snapshot")
    directory.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    parser.add_argument("--json", action="store_true", help="for programs; sizes in bytes, times in seconds")
    parser.add_argument("--verify", action="store_true", help="compare the digests of all files, which reads them all")
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand with its arguments; returns the exit status."""
    return carry_out(build_parser(), argv, _show)


def _show(options: argparse.Namespace) -> int:
    """Print what is in a snapshot."""
    from libcriu_py.cli import _contents

    contents = _contents.read(options.dir, verify=options.verify)
    if options.json:
        print(json.dumps(contents, indent=2))
    else:
        from libcriu_py.cli import _tree

        _tree.show(contents)
    return 1 if any(mismatch["fatal"] for mismatch in contents["mismatches"]) else 0
