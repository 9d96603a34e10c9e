"""
``libcriu-py run``: start a restored copy of a snapshot.

Everything on the way to the restore is time that the user waits, so a plain command line is read by hand. argparse is
for help and for complaints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import argparse

HELP = "run a snapshot's program, restored"

FLAGS = {"--no-fallback": "no_fallback", "--quiet": "quiet", "-q": "quiet"}

MODES = {"auto", "root", "capability", "rootless"}


class Options(NamedTuple):
    """
    The options of the command line.

    Attributes:
        dir: The snapshot.
        mode: How to be allowed to; None for the first way that works.
        no_fallback: Whether to fail where a conventional start would be tried.
        quiet: Whether to be silent about a conventional start.
    """

    dir: str
    mode: str | None
    no_fallback: bool
    quiet: bool


EPILOG = """\
The program gets the arguments, environment, working directory, standard streams, other inherited descriptors and
terminal of this command, and the command ends as the program ends: with its status, or by the same signal.

If the snapshot cannot be restored (another kernel or processor, changed files, no permission), the program is
started conventionally, with one line on stderr that says why. That never happens once the restored copy runs.

examples:
  libcriu-py run snap                          no arguments
  libcriu-py run snap --year 2024              options after DIR are the program's
  libcriu-py run snap -- --help                the same; a first -- is dropped
  zcat big.csv.gz | libcriu-py run snap - | head
  libcriu-py run py script.py a b              for a snapshot made with --preload and no program:
  libcriu-py run py -m http.server             scripts, modules, -c, or nothing, as for python

exit status:
  the program's own; 128+N means nothing here: a program that dies of signal N makes this command die of it too
  2    wrong command line
  125  the restore failed, and with it the conventional start or --no-fallback was given
  126  the snapshot cannot be used here, and --no-fallback was given
"""


def build_parser() -> argparse.ArgumentParser:
    """
    Describe the command line.

    Returns:
        The parser of everything up to DIR; what follows is the program's.
    """
    import argparse

    from libcriu_py.cli._arguments import MODE_HELP, build

    parser = build(
        "run",
        usage="[--no-fallback] [-q] [--mode MODE] DIR [--] [ARGUMENTS ...]",
        description="Restore a copy of the program in DIR and run it with new arguments.",
        epilog=EPILOG,
    )
    parser.add_argument("--no-fallback", action="store_true", help="fail where a conventional start would be tried")
    parser.add_argument("-q", "--quiet", action="store_true", help="do not say why there was a conventional start")
    parser.add_argument("--mode", choices=sorted(MODES), help=MODE_HELP)
    directory = parser.add_argument("dir", metavar="DIR", help="the snapshot")
    directory.complete = {"bash": "_shtab_compgen_dirs", "zsh": "_files -/"}  # type: ignore[attr-defined]
    # Never filled by argparse, which would take the program's options for ours; here for help and completion.
    parser.add_argument("arguments", metavar="ARGUMENTS", nargs=argparse.REMAINDER, help="arguments of the program")
    return parser


def split(argv: list[str]) -> tuple[list[str], list[str]]:
    """
    Separate what is for this command from what is for the program.

    Args:
        argv: The arguments of the subcommand.

    Returns:
        Everything up to DIR, and the rest without a first ``--``.
    """
    place = 0
    while place < len(argv) and argv[place].startswith("-") and argv[place] != "--":
        place += 2 if argv[place] == "--mode" else 1
    if argv[place : place + 1] == ["--"]:
        place += 1  # DIR may start with a dash
    own, rest = argv[: place + 1], argv[place + 1 :]
    return own, rest[1:] if rest[:1] == ["--"] else rest


def quick_parse(own: list[str]) -> Options | None:
    """
    Read a command line that has nothing wrong with it.

    Args:
        own: The part up to DIR.

    Returns:
        What argparse would make of it, or None to ask argparse.
    """
    flags = {"no_fallback": False, "quiet": False}
    mode: str | None = None
    words = iter(own[:-1])
    for word in words:
        if word in FLAGS:
            flags[FLAGS[word]] = True
        elif word == "--mode":
            mode = next(words, "")
            if mode not in MODES:
                return None
        else:
            return None
    if not own or own[-1].startswith("-"):
        return None
    return Options(dir=own[-1], mode=mode, **flags)


def main(argv: list[str]) -> int:
    """
    Run the subcommand.

    Args:
        argv: Its arguments.

    Returns:
        The exit status if the program could not be started; otherwise this process ends as the program does.
    """
    own, rest = split(argv)
    options = quick_parse(own)
    if options is None:
        from libcriu_py.cli._arguments import parse

        parsed = parse(build_parser(), own)
        if isinstance(parsed, int):
            return parsed
        options = Options(dir=parsed.dir, mode=parsed.mode, no_fallback=parsed.no_fallback, quiet=parsed.quiet)
    # Where it was built, the launcher that is no Python takes over, as for a `libcriu-py` on PATH.
    from libcriu_py.copies import launcher as native_launcher

    native_launcher.become(options.dir, rest, mode=options.mode, fallback=not options.no_fallback, quiet=options.quiet)
    from libcriu_py.dump.spawn import run

    return run(options.dir, rest, mode=options.mode, fallback=not options.no_fallback, quiet=options.quiet)
