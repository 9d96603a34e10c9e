"""
The command ``libcriu-py``: one module per subcommand.

Each has ``HELP`` (one line), ``build_parser`` and ``execute(options)``, or ``main(argv)`` if it splits the command line
itself. Only the module of the subcommand in use is imported, and ``run`` does without argparse, because these imports
delay every restored program.
"""

from __future__ import annotations

import sys
from importlib import import_module

from libcriu_py.cli._subcommands import SUBCOMMANDS, module_of


def main(argv: list[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: What follows the command's name; None means sys.argv[1:].

    Returns:
        The exit status, as listed in each subcommand's help. A successful ``run`` does not return: this process
        becomes the launcher.
    """
    args = sys.argv[1:] if argv is None else argv
    if args[:1] != ["run"]:  # copies inherit whether SIGCHLD is ignored
        _wait_for_children()
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        from libcriu_py.cli._arguments import end_by_interrupt

        end_by_interrupt()


def _dispatch(args: list[str]) -> int:
    """Run what the first word names."""
    if args and args[0] in SUBCOMMANDS:
        subcommand = import_module(module_of(args[0]))
        if hasattr(subcommand, "main"):
            status: int = subcommand.main(args[1:])
            return status
        from libcriu_py.cli._arguments import carry_out

        return carry_out(subcommand.build_parser(), args[1:], subcommand.execute)
    from libcriu_py.cli import _overview

    return _overview.main(args)


def _wait_for_children() -> None:
    """Reset SIGCHLD: if the parent process had it ignored, children of this one would have no exit status."""
    import _signal  # type: ignore[import-not-found]  # of C: `signal` would import enum

    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
