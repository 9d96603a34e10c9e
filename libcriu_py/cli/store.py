"""``libcriu-py store``: blocks of memory that several snapshots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build, carry_out, size

if TYPE_CHECKING:
    import argparse

HELP = "list or prune blocks of memory that snapshots share"

EPILOG = """\
A store is a directory that `snapshot --store` and `optimize --store` put large blocks of memory into. A snapshot has
the same files under its own names, as hard links: it can be moved and removed as any other, and the store too. A
block that no snapshot has any more stays in the store until it is pruned.

examples:
  libcriu-py store list ~/.cache/blocks
  libcriu-py store prune ~/.cache/blocks

exit status:
  0  done
  1  this is no store of this user's, or it cannot be written
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser.
    """
    parser = build(
        "store",
        usage="list|prune STORE",
        description="List the blocks of a store, or remove those that no snapshot has any more.",
        epilog=EPILOG,
    )
    parser.add_argument("action", choices=("list", "prune"), help="what to do")
    directory = parser.add_argument("store", metavar="STORE", help="the directory")
    directory.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand with its arguments; returns the exit status."""
    return carry_out(build_parser(), argv, _tend)


def _tend(options: argparse.Namespace) -> int:
    """List or prune the blocks of a store."""
    from libcriu_py.memory.store import Store

    store = Store(options.store)
    if options.action == "list":
        for block in store.blocks():
            print(f"{block.name}  {size(block.size)}  in {block.snapshots} snapshots")
    else:
        removed = store.prune()
        print(f"removed: {len(removed)} blocks, {size(sum(block.size for block in removed))}")
    return 0
