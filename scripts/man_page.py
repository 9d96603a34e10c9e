"""Print the man page of libcriu-py from its parsers; `make man` writes docs/libcriu-py.1, which wheels install."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from libcriu_py import __version__
from libcriu_py.cli import _overview
from libcriu_py.cli._arguments import PROG, Formatter
from libcriu_py.cli._subcommands import SUBCOMMANDS, module_of

if TYPE_CHECKING:
    import argparse


def literal(text: str) -> str:
    """Return a text as roff prints it unchanged."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in escaped.split("\n"))


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Return the options and arguments of a parser, each with its help."""
    formatter = Formatter(PROG, width=10_000)
    lines = []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other list of them
        if action.help and "help" not in action.dest:
            name = formatter._format_action_invocation(action)  # noqa: SLF001
            lines += [".TP", f".B {literal(name)}", literal(formatter._expand_help(action))]  # noqa: SLF001
    return lines


def verbatim(text: str) -> list[str]:
    """Return lines that keep their breaks."""
    return [".PP", ".nf", literal(text.rstrip()), ".fi"]


def subcommand(name: str) -> list[str]:
    """Return the section of a subcommand."""
    parser: argparse.ArgumentParser = import_module(module_of(name)).build_parser()
    usage = parser.format_usage().removeprefix("usage: ").strip()
    head = [f".SS {literal(name)}", f".B {literal(usage)}", ".PP", literal(parser.description or "")]
    return [*head, *options(parser), *verbatim(parser.epilog or "")]


def page() -> str:
    """Return the whole page."""
    whole = _overview.build_parser()
    lines = [
        f'.TH LIBCRIU\\-PY 1 "" "libcriu_py {__version__}"',
        *(".SH NAME", f"{literal(PROG)} \\- save a warmed\\-up Python program, and start restored copies of it"),
        *(".SH SYNOPSIS", f".B {literal(PROG)}", ".I SUBCOMMAND", ".RI [ ARGUMENTS ...]"),
        *(".SH DESCRIPTION", literal(whole.description or ""), *verbatim(whole.epilog or "")),
        ".SH SUBCOMMANDS",
        *(line for name in SUBCOMMANDS for line in subcommand(name)),
    ]
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
