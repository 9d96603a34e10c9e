"""``libcriu-py check``: check whether CRIU works here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build, report
from libcriu_py.errors import CriuError, OperationRefused

if TYPE_CHECKING:
    import argparse

    from libcriu_py.criu.client import Criu

HELP = "check whether CRIU works on this kernel"

EPILOG = """\
examples:
  libcriu-py check                  as the current user
  libcriu-py check --unprivileged   as root: is CAP_CHECKPOINT_RESTORE alone enough?

exit status:
  0  CRIU works here
  1  it does not, or it is not installed; stderr says why
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "check",
        usage="[--unprivileged]",
        description="Run CRIU's own check of this kernel, and print which CRIU is used.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--unprivileged",
        action="store_true",
        default=None,
        help="check what CRIU needs without root (default for every user but root)",
    )
    return parser


def execute(options: argparse.Namespace) -> int:
    """Run CRIU's own check of the kernel, and print its version and features."""
    try:
        from libcriu_py.criu.client import Criu

        criu = Criu()
        version = criu.version()
        print(f"criu {'.'.join(map(str, version))}: {criu.binary}", flush=True)
        criu.check(unprivileged=options.unprivileged)
    except CriuError as error:
        report(error)
        print("This is about criu alone; `libcriu-py doctor` shows which modes work here.", file=sys.stderr)
        return 1
    print("CRIU works here.")
    print(f"optional features: {_features(criu, unprivileged=options.unprivileged)}")
    return 0


def _features(criu: Criu, *, unprivileged: bool | None) -> str:
    """List the optional features; a criu with file capabilities may not read its own /proc/PID/pagemap to find out."""
    try:
        features = criu.features(unprivileged=unprivileged)
    except OperationRefused as error:
        return f"unknown ({error.reason})"
    return ", ".join(name for name, there in features._asdict().items() if there) or "none"
