"""``libcriu-py optimize``: make a snapshot start faster."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import MODE_HELP, MODES, build, carry_out, size

if TYPE_CHECKING:
    import argparse

HELP = "make the copies of a snapshot map their memory, or copy at once what they will write to"

EPILOG = """\
The memory of a snapshot is read by each copy at its start. Here it is written anew, such that copies map it from a
file instead, and read a page when they use it. The result is compared with the original, byte for byte, before it takes
its place; copies that are running go on. What is not known to be safe stays as it is (docs/mapped-memory.md).

With --learn-pages a copy is run, and what it writes to is copied by later ones before they go on, which is faster than
page by page. That is for programs that write to much of their memory each time: the whole run gets shorter, but the
first output comes later. Several such options: what every one of the runs writes to.

With --store large blocks of memory, such as arrays and tensors, get files of their own, named by their content, in a
directory where those of several snapshots are kept once; their copies share them. See libcriu-py store --help.

examples:
  libcriu-py optimize snap
  libcriu-py optimize --memory map snap     where there is little to gain, or another allocator is loaded, too
  libcriu-py optimize --learn-pages "--year 2024 in.csv" snap
  libcriu-py optimize --store ~/.cache/blocks snap

exit status:
  0  done, or there is nothing to gain, which the output tells
  1  the snapshot cannot be read or written, or a run failed; it is as it was
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
        usage='[--memory auto|map] [--learn-pages "ARGS"] [--store STORE] DIR',
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
    parser.add_argument(
        "--learn-pages",
        metavar='"ARGS"',
        action="append",
        default=[],
        help="run a copy with these arguments, and have later ones copy at once what it writes to; repeatable",
    )
    store = parser.add_argument("--store", metavar="STORE", help="share large blocks of memory with other snapshots")
    store.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    parser.add_argument("--mode", choices=MODES, help=MODE_HELP)
    directory = parser.add_argument("dir", metavar="DIR", help="the snapshot")
    directory.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    return parser


def main(argv: list[str]) -> int:
    """Run the subcommand with its arguments; returns the exit status."""
    return carry_out(build_parser(), argv, _improve)


def _improve(options: argparse.Namespace) -> int:
    """Do what the options ask for, in the order in which it helps."""
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
        print(f"memory stays copied: {result.why}", flush=True)
        return
    print(f"memory mapped: {size(result.mapped)}, and {size(result.copied)} stay copied: {result.why}", flush=True)
    for owner, amount in sorted(result.owners.items(), key=lambda item: -item[1]):
        print(f"  {size(amount)} {owner}")


def share(directory: str, path: str) -> None:
    """
    Put the large blocks of a snapshot into a store, and say how much that is.

    Args:
        directory: The snapshot.
        path: The store, which is made where there is none.

    Raises:
        SnapshotError: It cannot be shared.
        OSError: The snapshot or the store cannot be written.
    """
    from libcriu_py.memory import store

    shared = store.share(directory, store.Store(path, create=True))
    print(f"in the store: {size(shared.bytes)}, of which {size(shared.known)} were there already", flush=True)


def _learn(options: argparse.Namespace) -> None:
    from libcriu_py.copies.learning import learn

    learned = learn(options.dir, [shlex.split(args) for args in options.learn_pages], mode=options.mode)
    print(
        f"working set: {size(learned['bytes'])} written to, of which copies will copy {size(learned['ahead'])} at "
        f"their start, {size(learned['huge'])} of it as huge pages"
    )
