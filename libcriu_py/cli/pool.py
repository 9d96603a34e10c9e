"""``libcriu-py pool``: keep copies of a snapshot ready for ``run``."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, add_directory, add_json, add_setting, build, count, print_json, report
from libcriu_py.errors import CriuError

if TYPE_CHECKING:
    import argparse

HELP = "keep copies of a snapshot ready"

EPILOG = """\
The pool restores copies in advance, and they wait. `libcriu-py run DIR`, or a launch script, then uses a waiting copy
instead of restoring one; arguments, environment, streams, signals and exit status work as always. It still restores if
no copy is waiting, or if a waiting copy would differ from a restored one: on a terminal, in another control group,
namespace or mode, with other privileges or higher limits. Each copy is used once; the pool then restores another.

Ctrl-C or SIGTERM ends the pool and the waiting copies; copies in use go on. If the snapshot is replaced, the pool
switches to the new one. See docs/standby.md for the rest.

examples:
  libcriu-py pool snap                             keep two copies
  libcriu-py pool snap --size 8 --max-memory 512   up to eight copies, as many as fit into 512 MiB
  libcriu-py pool snap --idle-timeout 600          after ten minutes without a run, keep none until the next

  libcriu-py pool snap --status                    how many copies wait, and how many have been used

exit status:
  0  ended by a signal; with --status: there is a pool
  1  the snapshot cannot be restored here, or already has a pool
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "pool",
        usage="[--size N] [--max-memory MIB] [--idle-timeout SECONDS] [--allow DIFFERENCE] [--mode MODE] DIR\n"
        "       libcriu-py pool --status [--json] DIR",
        description="Keep copies of a snapshot ready, so that run need not restore one.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--size", type=int, default=2, metavar="N", help="how many copies to keep (default: %(default)s)"
    )
    parser.add_argument(
        "--max-memory", type=float, metavar="MIB", help="how much memory the waiting copies may use together"
    )
    parser.add_argument(
        "--idle-timeout", type=float, metavar="SECONDS", help="end waiting copies after this long without a run"
    )
    parser.add_argument(
        "--allow",
        action="append",
        choices=("cgroup", "terminal"),
        default=[],
        metavar="DIFFERENCE",
        help="cgroup: also serve runs in another control group; terminal: also serve runs with a controlling terminal "
        "on which none of their streams is; repeatable",
    )
    add_setting(parser, "mode")
    parser.add_argument("--status", action="store_true", help="only say how the pool that serves this snapshot is")
    add_json(parser)
    add_directory(parser)
    return parser


def execute(options: argparse.Namespace) -> int:
    """Keep copies waiting until a signal ends the pool, and return the exit status."""
    from libcriu_py.copies.standby.pool import StandbyPool

    if options.status or options.json:
        return _show_status(options)
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
    ended = False

    def end(*_: object) -> None:
        nonlocal ended
        ended = True
        pool.stop()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    try:
        with pool:
            if ended:
                pool.stop()
            pool.wait_ready()
            print(_waiting(pool.waiting, options.dir), flush=True)
            pool.wait()
    except (CriuError, OSError, RuntimeError) as error:
        if not ended:
            report(error)
            return 1
    return 0


def _waiting(number: int, directory: str) -> str:
    return f"{count(number, 'copy', 'copies')} of {directory} {'is' if number == 1 else 'are'} waiting"


def _show_status(options: argparse.Namespace) -> int:
    """Print how the pool of a snapshot is."""
    from libcriu_py.copies.standby.listener import status_of
    from libcriu_py.snapshot.manifest import Snapshot

    status = status_of(Snapshot.open(options.dir).path)
    if options.json:
        print_json(None if status is None else status._asdict())
    elif status is None:
        print(f"{options.dir} has no pool")
    else:
        print(f"{_waiting(status.waiting, options.dir)}; {count(status.served, 'run')} had one")
    return 1 if status is None else 0
