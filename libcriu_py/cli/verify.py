"""``libcriu-py verify``: read a whole snapshot and compare it with its sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, add_directory, add_json, build, print_json, size

if TYPE_CHECKING:
    import argparse

HELP = "check that no byte of a snapshot is damaged"

EPILOG = """\
Every byte is read but those of the log. Each start compares the small files. It trusts large ones, on this boot, until
they are touched, once this command or the one that made the snapshot has read them (LIBCRIU_PY_VERIFY). Run it where a
snapshot was copied to, unpacked or pulled. The sums are against damage: who can change the files can change the sums.

examples:
  libcriu-py verify snap && libcriu-py run snap

exit status:
  0  nothing is damaged
  1  a file is damaged or missing, or this is no snapshot
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "verify",
        usage="[--json] DIR",
        description="Compare all files of a snapshot with the sums that were taken when it was made.",
        epilog=EPILOG,
    )
    add_directory(parser)
    add_json(parser)
    return parser


def execute(options: argparse.Namespace) -> int:
    """Name each file that is damaged."""
    import sys

    from libcriu_py.program.progress import Progress
    from libcriu_py.snapshot.manifest import Snapshot

    snapshot = Snapshot.open(options.dir)
    with Progress(f"reading {snapshot.path}"):
        wrong = snapshot.verify()
    read = sum(file.size for file in snapshot.files.values())
    if options.json:
        print_json({"path": snapshot.path, "read": read, "damaged": [mismatch.text for mismatch in wrong]})
        return 1 if wrong else 0
    for mismatch in wrong:
        sys.stderr.write(f"{PROG}: {mismatch.text}\n")
    if not wrong:
        print(f"nothing is damaged: {size(read)} read")
    return 1 if wrong else 0
