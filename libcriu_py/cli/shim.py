"""``libcriu-py shim``: put launch scripts for PATH into a directory."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import PROG, USAGE, add_setting, build, complete

if TYPE_CHECKING:
    import argparse

    from libcriu_py.copies.python_shim import Shim

HELP = "make commands, or the python of a directory, start warm"

EPILOG = """\
With the names of commands, DIR gets files of these names that start them as `libcriu-py auto` does (docs/auto.md). Put
DIR before their own directory on PATH.

With the name python, DIR/python and DIR/python3 become launch scripts. They start a copy of an interpreter that has
the modules of --preload imported already, and take Python's own command line. Where a copy cannot be what the
interpreter itself would be, as after an upgrade of a package, that is started, silently, and the snapshot is made anew
in the background. Repeat the command for other modules. docs/warm-python.md has the rest.

LIBCRIU_PY_AUTO=0 starts commands and interpreters themselves.

examples:
  libcriu-py shim black mypy --into ~/.local/warm
  libcriu-py shim python --into .venv --preload pandas,torch
  libcriu-py shim python --into ~/bin --preload numpy --python /usr/bin/python3
  libcriu-py shim --list .venv
  libcriu-py shim python --remove .venv

exit status:
  0  done
  1  it was not, and stderr says why; with --list: no copies are started
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "shim",
        usage="NAME ... --into DIR | python --into DIR [--preload A,B] | --list DIR | [NAME ...] --remove DIR",
        description="Make commands, or the python of a directory or virtual environment, start warm.",
        epilog=EPILOG,
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="what is to start warm: commands, or python")
    where = parser.add_mutually_exclusive_group(required=True)
    for option, text in (
        ("--into", "the directory, or virtual environment, that gets the launch script"),
        ("--list", "say what is in a directory"),
        ("--remove", "put back what was there before"),
    ):
        complete(where.add_argument(option, metavar="DIR", help=text), "directory")
    for name in ("preload", "exit"):
        add_setting(parser, name, "snapshot")
    python = parser.add_argument("--python", metavar="PATH", help="the interpreter, for a directory that has none")
    complete(python, "file")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from libcriu_py.copies import python_shim

    if options.names != ["python"]:
        return _commands(options)
    if options.remove:
        if python_shim.remove(options.remove):
            return 0
        sys.stderr.write(f"{PROG}: the python of {options.remove} is no launch script\n")
        return 1
    preload = [name.strip() for names in options.preload for name in names.split(",") if name.strip()]
    made = python_shim.install(options.into, preload, python=options.python, exit=options.exit)
    return _show(made, options.into)


def _commands(options: argparse.Namespace) -> int:
    """Do it with the shims of commands."""
    from libcriu_py.auto import shims
    from libcriu_py.copies import python_shim

    if options.into:
        if not options.names or "python" in options.names:
            sys.stderr.write(f"{PROG} shim: name what is to start warm: commands, or python alone\n")
            return USAGE
        _print(shims.install(options.names, options.into))
        return 0
    if options.remove:
        gone = shims.remove(options.names, options.remove)
        if not gone and not options.names:
            gone = ["python"] if python_shim.remove(options.remove) else []
        missing = [name for name in options.names if name not in gone] if options.names else not gone and ["shim"]
        if missing:
            sys.stderr.write(f"{PROG}: {options.remove} has no {', '.join(missing)} that is a shim\n")
        return 1 if missing else 0
    found = shims.find(options.list)
    _print(found)
    python = python_shim.find(options.list)
    return 0 if found and python is None else _show(python, options.list)


def _print(found: dict[str, str]) -> None:
    for name, program in found.items():
        print(f"{name}: {program}")


def _show(shim: Shim | None, directory: str) -> int:
    """Print what there is, and return the exit status."""
    if shim is None:
        sys.stderr.write(f"{PROG}: the python of {directory} is no launch script\n")
        return 1
    print(f"{shim.directory}: {', '.join(shim.names)} for {shim.interpreter}")
    print(f"preloaded: {', '.join(shim.preload) or 'nothing'}")
    if shim.problem:
        print(f"starts the interpreter itself: {shim.problem}")
    return 1 if shim.problem else 0
