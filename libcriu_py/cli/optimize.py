"""``libcriu-py optimize``: make a snapshot start faster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libcriu_py.cli._arguments import (
    add_directory,
    add_json,
    add_setting,
    build,
    complete,
    print_json,
    size,
    split_words,
)

if TYPE_CHECKING:
    import argparse

HELP = "make copies of a snapshot start faster"

EPILOG = """\
Each copy reads the memory of its snapshot when it starts. This command rewrites the snapshot so that copies map their
memory from a file instead, and read a page when they first use it. It compares the result with the original, byte for
byte, before it replaces it. Running copies are not affected. Memory that is not known to be safe to map is still copied
(docs/mapped-memory.md).

--learn-pages runs a copy, and later copies copy the pages that it wrote to when they start, which is faster than page
by page. Use it for programs that always write to much of their memory: the whole run gets shorter, but the first output
comes later. If the option is given several times, only pages that every run writes to count.

--store moves large blocks of memory, such as arrays and tensors, to files named after their content, in a directory
that several snapshots and their copies share. See libcriu-py store --help.

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
        usage='[--memory auto|map] [--learn-pages "ARGS"] [--store STORE] [--mode MODE] [--json] DIR',
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
    add_json(parser)
    add_directory(parser)
    return parser


def execute(options: argparse.Namespace) -> int:
    """Map, then store, then learn, as the options ask: each step works on the result of the one before."""
    results: dict[str, Any] = {}
    if not (options.learn_pages or options.store) or not _is_mapped(options.dir):
        results["memory"] = _map(options)
    if options.store:
        results["store"] = share(options.dir, options.store, quiet=options.json)
    if options.learn_pages:
        results["working_set"] = _learn(options)
    if options.json:
        print_json(results)
    return 0


def _is_mapped(directory: str) -> bool:
    from libcriu_py.snapshot.manifest import Snapshot

    return Snapshot.open(directory).memory_key is not None


def _map(options: argparse.Namespace) -> dict[str, Any]:
    from libcriu_py.memory.optimize import optimize
    from libcriu_py.program.progress import Progress

    with Progress(f"rewriting {options.dir}"):
        result = optimize(options.dir, wanted=options.memory)
    facts = {"mapped": result.mapped, "copied": result.copied, "owners": dict(result.owners), "why": result.why}
    if options.json:
        return facts
    if result.kind == "copy":
        print(f"memory is still copied: {result.why}", flush=True)
        return facts
    print(f"memory mapped: {size(result.mapped)}; still copied: {size(result.copied)} ({result.why})", flush=True)
    for owner, amount in sorted(result.owners.items(), key=lambda item: -item[1]):
        print(f"  {size(amount)} {owner}")
    return facts


def share(directory: str, path: str, *, quiet: bool = False) -> dict[str, int]:
    """Put the large blocks of a snapshot into a store, which is created if missing; print and return their size."""
    from libcriu_py.memory import store
    from libcriu_py.program.progress import Progress

    with Progress(f"putting blocks of {directory} into {path}"):
        shared = store.share(directory, store.Store(path, create=True))
    if not quiet:
        print(f"in the store: {size(shared.bytes)}, of which {size(shared.known)} were already there", flush=True)
    return {"bytes": shared.bytes, "known": shared.known}


def _learn(options: argparse.Namespace) -> dict[str, Any]:
    from libcriu_py.copies.learning import learn

    learned = learn(
        options.dir, [split_words("--learn-pages", args) for args in options.learn_pages], mode=options.mode
    )
    if not options.json:
        print(
            f"working set: {size(learned['bytes'])} written to; copies will copy {size(learned['ahead'])} of it at "
            f"their start, {size(learned['huge'])} of that as huge pages"
        )
    return learned
