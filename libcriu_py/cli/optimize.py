"""
``libcriu-py optimize``: make a snapshot start faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build, parse, report, size
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "make the copies of a snapshot map their memory"

EPILOG = """\
The memory of a snapshot is read by each copy at its start. Here it is written anew, such that copies map it from a
file instead, and read a page when they use it. The result is compared with the original, byte for byte, before it takes
its place; copies that are running go on. What is not known to be safe stays as it is (docs/mapped-memory.md).

examples:
  libcriu-py optimize snap
  libcriu-py optimize --memory map snap     where there is little to gain, or another allocator is loaded, too

exit status:
  0  done, or there is nothing to gain, which the output tells
  1  the snapshot cannot be read or written; it is as it was
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser.
    """
    parser = build(
        "optimize",
        usage="[--memory auto|map] DIR",
        description="Make the copies of a snapshot map their memory instead of reading it.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--memory",
        choices=("auto", "map"),
        metavar="KIND",
        default="auto",
        help="map: whatever is safe; auto: only where that is worth it (default: %(default)s)",
    )
    directory = parser.add_argument("dir", metavar="DIR", help="the snapshot")
    directory.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    return parser


def main(argv: list[str]) -> int:
    """
    Run the subcommand.

    Args:
        argv: Its arguments.

    Returns:
        The exit status.
    """
    options = parse(build_parser(), argv)
    if isinstance(options, int):
        return options
    from libcriu_py.mapped.optimize import optimize

    try:
        result = optimize(options.dir, wanted=options.memory)
    except (CriuError, OSError) as error:
        report(error)
        return 1
    if result.kind == "copy":
        print(f"memory stays copied: {result.why}")
        return 0
    print(f"memory mapped: {size(result.mapped)}, and {size(result.copied)} stay copied: {result.why}")
    for owner, amount in sorted(result.owners.items(), key=lambda item: -item[1]):
        print(f"  {size(amount)} {owner}")
    return 0
