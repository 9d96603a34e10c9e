"""``libcriu-py pool``: hold copies of a snapshot ready for ``run``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import MODE_HELP, MODES, PROG, build, parse, report
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "hold copies of a snapshot ready"

EPILOG = """\
Copies are restored ahead of time and wait. `libcriu-py run DIR`, and a launch script, takes one that waits instead of
restoring, with all else as ever: arguments, environment, streams, signals, exit status. It restores where no copy
waits, and where a copy could not be what a restore would be: from a terminal, or from another control group,
namespace, mode, with other rights or higher limits. A copy is used once, and replaced.

The pool ends by Ctrl-C or SIGTERM, and with it the copies that wait; those in use go on. A snapshot that is replaced
is followed. docs/standby.md tells the rest.

examples:
  libcriu-py pool snap                             two copies wait
  libcriu-py pool snap --size 8 --max-memory 512   as many of eight as take 512 MiB
  libcriu-py pool snap --idle-timeout 600          none any more after ten minutes without a run, until the next

exit status:
  0  ended by a signal
  1  the snapshot cannot be restored here, or has a pool already
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser.
    """
    parser = build(
        "pool",
        usage="[--size N] [--max-memory MIB] [--idle-timeout SECONDS] [--allow DIFFERENCE] [--mode MODE] DIR",
        description="Hold copies of a snapshot ready, which run takes instead of restoring.",
        epilog=EPILOG,
    )
    parser.add_argument("--size", type=int, default=2, metavar="N", help="how many copies wait (default: %(default)s)")
    parser.add_argument("--max-memory", type=float, metavar="MIB", help="what the waiting copies may take together")
    parser.add_argument(
        "--idle-timeout", type=float, metavar="SECONDS", help="end waiting copies after so long without a run"
    )
    parser.add_argument(
        "--allow",
        action="append",
        choices=("cgroup", "terminal"),
        default=[],
        metavar="DIFFERENCE",
        help="serve runs from another control group (cgroup), or that have a controlling terminal and none of their "
        "streams on it (terminal); may be given twice",
    )
    parser.add_argument("--mode", choices=MODES, help=MODE_HELP)
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
    from libcriu_py.copies.standby.pool import StandbyPool

    try:
        pool = StandbyPool(
            options.dir,
            size=options.size,
            max_memory=options.max_memory,
            idle_timeout=options.idle_timeout,
            mode=options.mode,
            allow=options.allow,
            report=lambda problem: print(f"{PROG}: {problem}", file=sys.stderr, flush=True),
        )
    except ValueError as error:
        build_parser().print_usage(sys.stderr)
        report(error)
        return 2
    asked = False

    def end(*_: object) -> None:
        nonlocal asked
        asked = True
        pool.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with pool:
            if asked:
                pool.stop()
            pool.wait_ready()
            print(f"{pool.waiting} copies of {options.dir} wait", flush=True)
            pool.wait()
    except (CriuError, OSError, RuntimeError) as error:
        if not asked:
            report(error)
            return 1
    return 0
