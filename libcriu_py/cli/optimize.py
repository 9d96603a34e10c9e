"""``libcriu-py optimize``: make a snapshot start faster."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import add_directory, add_setting, build, carry_out, complete, size

if TYPE_CHECKING:
    import argparse

HELP = "make copies of a snapshot map their memory, or copy at once what they will write to"

EPILOG = """\
Each copy reads the memory of its snapshot when it starts. This command rewrites the snapshot so that copies map their
memory from a file instead, and read a page when they use it. The result is compared with the original, byte for byte,
before it replaces it; running copies go on. What is not known to be safe stays as it is (docs/mapped-memory.md).

With --learn-pages, a copy is run, and later copies copy the pages that it wrote to before they start, which is faster
than page by page. This is for programs that always write to much of their memory: the whole run gets shorter, but the
first output comes later. If the option is given several times, only pages that every run writes to count.

With --store, large blocks of memory, such as arrays and tensors, become files of their own, named after their content,
in a directory that keeps those of several snapshots once; their copies share them. See libcriu-py store --help.

examples:
  libcriu-py optimize snap
  libcriu-py optimize --memory map snap     even where little is gained, or another allocator is loaded
  libcriu-py optimize --learn-pages "--year 2024 in.csv" snap
  libcriu-py optimize --store ~/.cache/blocks snap

exit status:
  0  done, or there is nothing to gain; the output says which
  1  the snapshot cannot be read or written, or a run failed; it is unchanged
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "optimize",
        usage='[--memory auto|map] [--learn-pages "ARGS"] [--store STORE] [--mode MODE] DIR',
        description="Make the copies of a snapshot map their memory instead of reading it.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--memory",
        choices=("auto", "map"),
        metavar="KIND",
        default="auto",
        help="map: map whatever is safe; auto: only where that is worth it (default: %(default)s)",
    )
    parser.add_argument(
        "--learn-pages",
        metavar='"ARGS"',
        action="append",
        default=[],
        help="run a copy with these arguments, and make later ones copy at once what it wrote to; repeatable",
    )
    store = parser.add_argument("--store", metavar="STORE", help="share large blocks of memory with other snapshots")
    complete(store, "directory")
    add_setting(parser, "mode")
    add_directory(parser)
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand, and return its exit status."""
    return carry_out(build_parser(), argv, _improve)


def _improve(options: argparse.Namespace) -> int:
    """Do what the options ask for, in the order that helps."""
    if not (options.learn_pages or options.store) or not _is_mapped(options.dir):
        _map(options)
    if options.store:
        share(options.dir, options.store)
    if options.learn_pages:
        _learn(options)
    return 0


def _is_mapped(directory: str) -> bool:
    from libcriu_py.snapshot.manifest import Snapshot

    return Snapshot.open(directory).memory_key is not None


def _map(options: argparse.Namespace) -> None:
    from libcriu_py.memory.optimize import optimize

    result = optimize(options.dir, wanted=options.memory)
    if result.kind == "copy":
        print(f"memory is still copied: {result.why}", flush=True)
        return
    print(f"memory mapped: {size(result.mapped)}; still copied: {size(result.copied)} ({result.why})", flush=True)
    for owner, amount in sorted(result.owners.items(), key=lambda item: -item[1]):
        print(f"  {size(amount)} {owner}")


def share(directory: str, path: str) -> None:
    """
    Put the large blocks of a snapshot into a store, and print how much that is.

    Args:
        directory: The snapshot.
        path: The store; created if missing.

    Raises:
        SnapshotError: It cannot be shared.
        OSError: The snapshot or the store cannot be written.
    """
    from libcriu_py.memory import store

    shared = store.share(directory, store.Store(path, create=True))
    print(f"in the store: {size(shared.bytes)}, of which {size(shared.known)} were already there", flush=True)


def _learn(options: argparse.Namespace) -> None:
    from libcriu_py.copies.learning import learn

    learned = learn(options.dir, [shlex.split(args) for args in options.learn_pages], mode=options.mode)
    print(
        f"working set: {size(learned['bytes'])} written to; copies will copy {size(learned['ahead'])} of it at their "
        f"start, {size(learned['huge'])} of that as huge pages"
    )
