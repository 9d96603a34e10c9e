"""``libcriu-py completion``: print the shell's completion script."""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcriu_py.cli._arguments import build

if TYPE_CHECKING:
    import argparse

HELP = "print a completion script for bash, zsh or fish"

EPILOG = """\
examples:
  libcriu-py completion bash > ~/.local/share/bash-completion/completions/libcriu-py
  libcriu-py completion zsh > "${fpath[1]}/_libcriu-py"
  libcriu-py completion fish > ~/.config/fish/completions/libcriu-py.fish
  eval "$(libcriu-py completion bash)"     for the current shell only

exit status:
  0  the script is on stdout
  2  wrong command line
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this subcommand."""
    parser = build(
        "completion",
        usage="bash|zsh|fish",
        description="Print the script that completes libcriu-py's command lines.",
        epilog=EPILOG,
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
    return parser


def execute(options: argparse.Namespace) -> int:
    """Print the script for one shell."""
    import shtab

    from libcriu_py.cli._overview import build_parser as build_whole

    print(shtab.complete(build_whole(), options.shell))
    return 0
