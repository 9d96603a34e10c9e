"""``libcriu-py check``: check whether CRIU works here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from libcriu_py.cli._arguments import add_json, build, print_json, report
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
        usage="[--json] [--unprivileged]",
        description="Run CRIU's own check of this kernel, and print which CRIU is used.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--unprivileged",
        action="store_true",
        default=None,
        help="check what CRIU needs without root (default for every user but root)",
    )
    add_json(parser)
    return parser


def execute(options: argparse.Namespace) -> int:
    """Run CRIU's own check of the kernel, and print its version and features."""
    found: dict[str, Any] = {"criu": None, "version": None, "works": False, "why_not": None, "features": None}
    try:
        from libcriu_py.criu.client import Criu

        criu = Criu()
        found |= {"criu": criu.binary, "version": ".".join(map(str, criu.version()))}
        if not options.json:
            print(f"criu {found['version']}: {criu.binary}", flush=True)
        criu.check(unprivileged=options.unprivileged)
        found |= {"works": True, "features": _features(criu, unprivileged=options.unprivileged)}
    except CriuError as error:
        found["why_not"] = str(error)
        if not options.json:
            report(error)
            sys.stderr.write("This is about criu alone; `libcriu-py doctor` shows which modes work here.\n")
    if options.json:
        print_json(found)
    elif found["works"]:
        print("CRIU works here.")
        print(f"optional features: {_in_words(found['features'])}")
    return 0 if found["works"] else 1


def _features(criu: Criu, *, unprivileged: bool | None) -> dict[str, bool] | str:
    """Return the optional features, or why a criu with file capabilities may not find them out (/proc/PID/pagemap)."""
    try:
        return criu.features(unprivileged=unprivileged)._asdict()
    except OperationRefused as error:
        return error.reason


def _in_words(features: dict[str, bool] | str) -> str:
    if isinstance(features, str):
        return f"unknown ({features})"
    return ", ".join(name for name, there in features.items() if there) or "none"
