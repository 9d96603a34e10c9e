"""
``libcriu-py run``: start a restored copy of a snapshot.

The user waits for everything that happens before the restore, so a valid command line is parsed by hand; argparse
handles only help and errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from libcriu_py.settings import of_use

if TYPE_CHECKING:
    import argparse

HELP = "run the program of a snapshot"

FLAGS = {"--no-fallback": "no_fallback", "--quiet": "quiet", "-q": "quiet"}
WITH_VALUE = ("--engine", "--mode")


EPILOG = """\
The program gets this command's arguments, environment, working directory, standard streams, other inherited
descriptors and terminal. The command ends as the program does: with the same status, or by the same signal.

If the snapshot cannot be restored (another kernel or processor, changed files, no permission), the program starts
conventionally, and one line on stderr says why. That never happens after the restored copy has started.

examples:
  libcriu-py run snap                          no arguments
  libcriu-py run snap --year 2024              options after DIR go to the program
  libcriu-py run snap -- --help                the same; the first -- is dropped
  zcat big.csv.gz | libcriu-py run snap - | head
  libcriu-py run py script.py a b              if the snapshot was made without a program (--preload):
  libcriu-py run py -m http.server             a script, a module, -c, or nothing, as for python

exit status:
  the program's own; if signal N kills the program, it kills this command too, so 128+N has no special meaning
  2    wrong command line
  125  the restore failed, and --no-fallback was given or the conventional start failed too
  126  the snapshot cannot be used here, and --no-fallback was given
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of everything up to DIR; what follows is the program's."""
    from libcriu_py.cli._arguments import add_directory, add_rest, add_setting, build

    parser = build(
        "run",
        usage="[--no-fallback] [-q] [--engine ENGINE] [--mode MODE] DIR [--] [ARGUMENTS ...]",
        description="Restore a copy of the program in DIR and run it with new arguments.",
        epilog=EPILOG,
    )
    parser.add_argument(
        "--no-fallback", action="store_true", help="fail instead of starting the program conventionally"
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="do not say why the program is started conventionally"
    )
    add_setting(parser, "engine", "restore")
    add_setting(parser, "mode")
    add_directory(parser)
    add_rest(parser)
    return parser


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """
    Split the command's own words from the program's.

    Args:
        argv: The arguments of the subcommand.

    Returns:
        Everything up to DIR, and the rest without a first ``--``.
    """
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "--":
        place += 2 if argv[place] in WITH_VALUE else 1
    if argv[place : place + 1] == ["--"]:
        place += 1  # DIR may start with a dash
    own, rest = argv[: place + 1], argv[place + 1 :]
    return own, rest[1:] if rest[:1] == ["--"] else rest


def quick_parse(own: list[str]) -> dict[str, Any] | None:
    """
    Parse a valid command line.

    Args:
        own: The part up to DIR.

    Returns:
        The options as argparse would return them, or None if argparse is needed.
    """
    options: dict[str, Any] = {"no_fallback": False, "quiet": False, "engine": None, "mode": None}
    words = iter(own[:-1])
    for word in words:
        if word in FLAGS:
            options[FLAGS[word]] = True
        elif word in WITH_VALUE:
            name, value = word[2:], next(words, "")
            if value not in of_use(name, "restore").choices:
                return None
            options[name] = value
        else:
            return None
    if not own or own[-1].startswith("-"):
        return None
    return {**options, "dir": own[-1]}


def main(argv: list[str]) -> int:
    """
    Run the subcommand.

    Args:
        argv: Its arguments.

    Returns:
        The exit status of a wrong command line; otherwise this process becomes the launcher.

    Raises:
        CriuError: The launcher was not built.
    """
    own, rest = split(argv)
    options = quick_parse(own)
    if options is None:
        from libcriu_py.cli._arguments import parse

        parsed = parse(build_parser(), own)
        if isinstance(parsed, int):
            return parsed
        options = vars(parsed)
    from libcriu_py.snapshot import launcher

    flags = [word for word in ("--no-fallback", "--quiet") if options[FLAGS[word]]]
    for name in ("engine", "mode"):
        if options[name] is not None:
            flags += [f"--{name}", options[name]]
    return launcher.become([*flags, "--", options["dir"], "--", *rest])
