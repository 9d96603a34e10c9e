"""``libcriu-py kernel``: kernels of Jupyter that start warm."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, USAGE, add_setting, build

if TYPE_CHECKING:
    import argparse

    from libcriu_py.integrations.jupyter import Kernel

HELP = "have kernels of Jupyter start with modules imported"

EPILOG = """\
The kernel is one of the interpreter that runs this command, which needs ipykernel. Where a copy cannot be what a new
interpreter would be, that starts, silently; a stale snapshot is made anew in the background.

examples:
  libcriu-py kernel install --name warm --preload pandas,torch
  libcriu-py kernel list
  libcriu-py kernel remove --name warm

exit status:
  0  done
  1  it was not, and stderr says why; with list: a kernel does not start warm
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "kernel",
        usage="install --name NAME [--preload A,B] | list | remove --name NAME",
        description="Install, list or remove kernels of Jupyter that start as copies of a warm interpreter.",
        epilog=EPILOG,
    )
    parser.add_argument("action", choices=("install", "list", "remove"), help="what to do")
    parser.add_argument("--name", metavar="NAME", help="the name of the kernel")
    parser.add_argument("--display-name", metavar="TEXT", help="what notebooks show; default: the name")
    parser.add_argument("--sys-prefix", action="store_true", help="install it for this environment, not for this user")
    add_setting(parser, "preload", "snapshot")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from libcriu_py.integrations import jupyter

    if options.action == "list":
        return max(map(_show, jupyter.installed()), default=0)
    if not options.name:
        sys.stderr.write(f"{PROG} kernel: {options.action} needs --name NAME\n")
        return USAGE
    if options.action == "remove":
        if jupyter.remove(options.name):
            return 0
        sys.stderr.write(f"{PROG}: there is no warm kernel {options.name}; see {PROG} kernel list\n")
        return 1
    preload = [name.strip() for names in options.preload for name in names.split(",") if name.strip()]
    prefix = sys.prefix if options.sys_prefix else None
    return _show(jupyter.install(options.name, preload, display_name=options.display_name, prefix=prefix))


def _show(kernel: Kernel) -> int:
    """Print a kernel, and return the exit status."""
    print(f"{kernel.name}: {kernel.directory}, preloaded: {', '.join(kernel.preload) or 'what kernels need'}")
    if kernel.problem:
        print(f"starts the interpreter itself: {kernel.problem}")
    return 1 if kernel.problem else 0
