"""Arguments, parsing and messages that the subcommands share."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from libcriu_py.errors import CriuError, in_words
from libcriu_py.settings import TABLE, check_variables, of_use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PROG = "libcriu-py"

USAGE = 2
"""Exit status for a wrong command line."""

COMPLETIONS = {
    "directory": {"bash": "_shtab_compgen_dirs", "zsh": "_files -/", "fish": "(__fish_complete_directories)"},
    "file": {"bash": "_shtab_compgen_files", "zsh": "_files", "fish": "(__fish_complete_path (commandline -ct))"},
}
"""How shells complete paths."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of descriptions and epilogs, which hold examples and tables."""


class Parser(argparse.ArgumentParser):
    """A parser that suggests an option in place of one that it does not know."""

    def error(self, message: str) -> NoReturn:
        """Print the usage, the problem and a suggestion, and exit with status 2."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            message += did_you_mean(unknown.split()[0].partition("=")[0], self._option_string_actions)
        super().error(message)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a complaint about an unknown word: the known word that it resembles; empty if there is none."""
    from difflib import get_close_matches

    found = get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def build(name: str, *, usage: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """
    Start the parser of a subcommand.

    Args:
        name: The subcommand.
        usage: What follows its name on the command line.
        description: What it does.
        epilog: Examples and exit statuses.

    Returns:
        A parser without arguments.
    """
    return Parser(
        prog=f"{PROG} {name}",
        usage=f"{PROG} {name} {usage}",
        description=description,
        epilog=epilog,
        formatter_class=Formatter,
        allow_abbrev=False,
    )


def add_setting(parser: argparse.ArgumentParser, name: str, use: str = "") -> None:
    """
    Add the option of a setting. Without it, the value is None, which leaves the setting to the program.

    Args:
        parser: Where to add it.
        name: The name of the setting.
        use: Which of its uses this is, if it differs between them.
    """
    setting = of_use(name, use) if use else TABLE[name]
    how: dict[str, Any] = {"dest": name, "help": setting.text}
    if setting.kind == "flag":
        how["action"] = "store_true"
    elif setting.kind == "list":
        how |= {"action": "append", "default": [], "metavar": setting.metavar}
    elif setting.choices:
        how["choices"] = setting.choices
        if setting.default is not None:
            how["help"] += f"; default: the program's own choice, else {setting.default}"
    else:
        how["metavar"] = setting.metavar
    if name == "python":
        how |= {"nargs": "?", "const": "", "metavar": "PATH"}
    complete(parser.add_argument(*setting.options, **how), setting.kind)


def complete(action: argparse.Action, kind: str) -> None:
    """Have shells complete the value of an argument, if that is a "directory" or "file"."""
    if kind in COMPLETIONS:
        action.complete = COMPLETIONS[kind]  # type: ignore[attr-defined]


def add_directory(parser: argparse.ArgumentParser, name: str = "dir", text: str = "the snapshot") -> None:
    """Add a directory as a positional argument."""
    complete(parser.add_argument(name, metavar=name.upper(), help=text), "directory")


def add_program(parser: argparse.ArgumentParser) -> None:
    """Add the options and arguments that name a program and its interpreter."""
    add_setting(parser, "python")
    add_setting(parser, "module")
    target = parser.add_argument("target", metavar="SCRIPT | COMMAND", nargs="?", help="a file, directory or command")
    complete(target, "file")
    add_rest(parser)


def add_rest(parser: argparse.ArgumentParser) -> None:
    """Add the program's arguments, for help and completion only: argparse would parse its options as ours."""
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="arguments of the program")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that asks for JSON in place of words for people."""
    parser.add_argument("--json", action="store_true", help="print JSON; sizes in bytes, times in seconds")


def print_json(data: object) -> None:
    """Print plain data as JSON."""
    import json

    print(json.dumps(data, indent=2))


def split_words(option: str, text: str) -> list[str]:
    """
    Split the arguments of a run as a shell would.

    Args:
        option: The option that has them.
        text: Its value.

    Raises:
        CriuError: A quote is not closed.
    """
    import shlex

    try:
        return shlex.split(text)
    except ValueError as error:
        message = f"{option} {text!r} is no command line: {str(error).lower()}"
        raise CriuError(message) from None


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace | int:
    """Return the options, or the exit status if --help was printed or a problem was reported; never exit."""
    try:
        return parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else USAGE


def carry_out(parser: argparse.ArgumentParser, argv: Sequence[str], action: Callable[[argparse.Namespace], int]) -> int:
    """
    Parse the arguments, do the work, and report failures.

    Args:
        parser: The parser of the subcommand.
        argv: Its arguments.
        action: The work; takes the options and returns the exit status.

    Returns:
        The exit status.
    """
    options = parse(parser, argv)
    if isinstance(options, int):
        return options
    try:
        check_variables()
    except ValueError as error:
        report(error)
        return USAGE
    try:
        return action(options)
    except (CriuError, OSError) as error:
        report(error)
        return 1


def end_by_interrupt() -> NoReturn:
    """End by SIGINT, with one line in place of a traceback, so that a shell sees what became of the command."""
    import os
    import signal

    sys.stdout.flush()
    sys.stderr.write(f"{PROG}: interrupted\n")
    sys.stderr.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.kill(os.getpid(), signal.SIGINT)
    raise SystemExit(128 + signal.SIGINT)  # not reached


def report(error: BaseException) -> None:
    """Print an error of this package, whose text is a sentence."""
    sys.stderr.write(f"{PROG}: {in_words(error)}\n")


def size(number: float) -> str:
    """Format a number of bytes for people, by powers of 1000, such as "1.5 MB"."""
    for unit in ("B", "kB", "MB"):
        if number < 1000:  # a power of the unit
            return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.2f} GB"


def count(number: int, one: str, many: str = "") -> str:
    """Return a number of things, such as "1 block" or "2 blocks"."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
