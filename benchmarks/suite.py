"""
Run all benchmarks in one go, and put what they say into README.md and docs/benchmarks.md.

Each has a share of the time; what one does not use the later ones have. The number of rounds follows from that: 5 to 12
of everything. What cannot be measured here is named.

Run it as ``python -m benchmarks.suite`` in an environment where the package is installed with its extra ``bench``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import bars, machine, readme
from benchmarks.bars import RESULTS
from benchmarks.snapshots import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

MINUTE = 60.0  # seconds
MINUTES = 27.0
"""Three less than half an hour: a round that has begun is finished, and an installation takes time as well."""
RUNS = 12


class Part(NamedTuple):
    """One of the benchmarks."""

    name: str
    """Of the module, and of its results."""
    share: int
    """Of the time, in relation to the others'."""
    options: tuple[str, ...] = ()
    pictures: bool = False


PARTS = (
    Part("startup", 9, pictures=True),
    Part("copies", 5),
    Part("growth", 4, pictures=True),
    Part("touch", 3),
    Part("standby", 3),
    Part("pause", 2),
    Part("modes", 2, ("--only", "empty", "--only", "torch")),
    Part("spawn", 2),
)


class Options(argparse.Namespace):
    """The command line."""

    minutes: float
    runs: int
    only: list[str]
    results: Path
    root: Path


def parse(argv: Sequence[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = argparse.ArgumentParser(prog="suite.py", description="Run all benchmarks in one go.")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="M", help="how long it may take (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help="rounds of each, at most (default: %(default)s)"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[part.name for part in PARTS],
        help="run this part; may be given more than once (default: all)",
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, metavar="DIR", help="directory of results and pictures (%(default)s)"
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=readme.ROOT,
        metavar="DIR",
        help="where README.md and docs are, into which the results are put (default: this tree)",
    )
    options = parser.parse_args(argv, namespace=Options())
    if options.minutes <= 0 or options.runs < 1:
        parser.error("--minutes and --runs must be above 0")
    return options


def run(part: Part, minutes: float, options: Options) -> int:
    """
    Run one of the benchmarks.

    Args:
        part: Which.
        minutes: How long it may take.
        options: The command line.

    Returns:
        Its exit status.
    """
    argv = [sys.executable, "-m", f"benchmarks.{part.name}", *part.options, "--runs", str(options.runs)]
    argv += ["--minutes", f"{minutes:.2f}", "--json", str(options.results / f"{part.name}.json")]
    if part.pictures:
        argv += ["--plot", str(options.results / f"{part.name}.png")]
    return subprocess.run(argv, env=environment(), cwd=readme.ROOT, check=False).returncode


def say(text: str) -> None:
    """
    Say how far it is, before what the parts print.

    Args:
        text: A sentence.
    """
    print(f"bench: {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run them, rewrite the documents, and print the bars.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when a part could not be measured.
    """
    options = parse(argv)
    options.results = options.results.resolve()
    options.results.mkdir(parents=True, exist_ok=True)
    parts = [part for part in PARTS if not options.only or part.name in options.only]
    start = time.monotonic()
    torch = machine.torch_kind()
    if torch not in {None, "CPU"}:
        say(f"torch is a {torch} build, whose images are larger and slower to restore than a CPU build's")
    failed = []
    for place, part in enumerate(parts):
        passed = (time.monotonic() - start) / MINUTE
        left = max(options.minutes - passed, 0)
        minutes = max(left * part.share / sum(other.share for other in parts[place:]), 0.01)
        say(f"{part.name}, part {place + 1} of {len(parts)}: {minutes:.1f} minutes planned, {passed:.1f} have passed")
        if run(part, minutes, options) != 0:
            failed.append(part.name)
    status = readme.main([str(options.results), "--root", str(options.root)])
    bars.main([str(options.results)])
    say(f"{(time.monotonic() - start) / MINUTE:.1f} minutes in all; results are in {options.results}")
    if failed:
        say(f"not measured: {', '.join(failed)}; what they have said is above")
    return status or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
