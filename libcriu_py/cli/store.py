"""``libcriu-py store``: list or prune the memory blocks that snapshots share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import add_directory, add_json, build, count, print_json, size

if TYPE_CHECKING:
    import argparse

HELP = "list or prune the memory blocks that snapshots share"

EPILOG = """\
`snapshot --store` and `optimize --store` put large blocks of memory into a store, which is a directory. Snapshots have
hard links to these files, so you can move and remove snapshots and stores as usual. A block that no snapshot uses any
more stays in the store until you prune it.

examples:
  libcriu-py store list ~/.cache/blocks
  libcriu-py store prune ~/.cache/blocks

exit status:
  0  done
  1  this is not a store of this user, or it cannot be written
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "store",
        usage="list|prune [--json] STORE",
        description="List the blocks of a store, or remove those that no snapshot uses any more.",
        epilog=EPILOG,
    )
    parser.add_argument("action", choices=("list", "prune"), help="what to do")
    add_directory(parser, "store", "the store")
    add_json(parser)
    return parser


def execute(options: argparse.Namespace) -> int:
    """List or prune the blocks of a store."""
    from libcriu_py.memory.store import Store

    store = Store(options.store)
    if options.json:
        found = store.blocks() if options.action == "list" else store.prune()
        print_json([block._asdict() for block in found])
    elif options.action == "list":
        for block in store.blocks():
            print(f"{block.name}  {size(block.size)}  in {count(block.snapshots, 'snapshot')}")
    else:
        removed = store.prune()
        print(f"removed: {count(len(removed), 'block')}, {size(sum(block.size for block in removed))}")
    return 0
