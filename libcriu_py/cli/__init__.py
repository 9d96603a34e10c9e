"""
The command ``libcriu-py``: one module per subcommand.

Each has ``HELP`` (one line), ``build_parser`` and ``main(argv) -> int``. Only the module of the subcommand in use is
imported, and ``run`` gets by without argparse: what is imported here delays every restored program.
"""

from __future__ import annotations

import sys
from importlib import import_module

from libcriu_py.cli._subcommands import SUBCOMMANDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def main(argv: list[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: What follows the command's name; None means sys.argv[1:].

    Returns:
        The exit status; each subcommand's help lists them. A successful ``run`` does not return: it ends as the
        restored program ended.
    """
    args = sys.argv[1:] if argv is None else argv
    if args[:1] != ["run"]:  # which hands over how it was started
        _wait_for_children()
    if args and args[0] in SUBCOMMANDS:
        subcommand: Callable[[list[str]], int] = import_module(f"libcriu_py.cli.{args[0]}").main
        return subcommand(args[1:])
    from libcriu_py.cli import _overview

    return _overview.main(args)


def _wait_for_children() -> None:
    """Undo that SIGCHLD is ignored, as some programs have those that they start do: children would have no status."""
    import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
