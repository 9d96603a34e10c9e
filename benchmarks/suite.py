"""
Run all benchmarks in one go, and write their results into README.md and docs/benchmarks.md; or run one of them.

Each has a share of the time; the later ones get what one does not use. The number of rounds follows from that: 5 to 12
of everything. What cannot be measured here is named.

Run it as `python -m benchmarks.suite` in an environment where the package is installed with its extra `bench`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from benchmarks import machine
from benchmarks.bars import Results, bars
from benchmarks.bench import MINUTE, Bench, Options
from benchmarks.experiments import EXPERIMENTS
from benchmarks.report import ROOT, TABLES, bar_table, rewrite
from benchmarks.scenarios import SCENARIOS
from benchmarks.snapshots import environment

N = TypeVar("N", int, float)
RESULTS = Path(__file__).resolve().parent / "results"
MINUTES = 27.0
"""Three less than half an hour: a round that has begun is finished, and an installation takes time as well."""
RUNS = 12
PICTURES = ("startup", "growth")
EDITABLE = (
    "[yellow]note:[/yellow] an editable installation makes every start of this Python slower, conventional ones too;"
    " install with: pip install --config-settings editable_mode=compat -e . (or without -e)"
)


def positive(kind: Callable[[str], N]) -> Callable[[str], N]:
    """Return what reads a number, and refuses one that is not above zero."""

    def number(text: str) -> N:
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


def add_options(
    parser: argparse.ArgumentParser, runs: int, minutes: float | None, results: Path | None, choices: Collection[str]
) -> None:
    """Add the options that all and each of the experiments have, with their defaults and what `--only` selects."""
    rounds = "rounds, at most where there is a time (default: %(default)s)"
    parser.add_argument("--runs", type=positive(int), default=runs, metavar="N", help=rounds)
    fit = "minutes into which the rounds are to fit (default: %(default)s)"
    parser.add_argument("--minutes", type=positive(float), default=minutes, metavar="M", help=fit)
    where = "directory of results and pictures (default: %(default)s)"
    parser.add_argument("--results", type=Path, default=results, metavar="DIR", help=where)
    if choices:
        only = "measure this; may be given more than once"
        parser.add_argument("--only", action="append", default=[], choices=choices, help=only)


def parse(argv: Sequence[str] | None) -> Options:
    """Read the command line, without the program's name; that of this process by default."""
    parser = argparse.ArgumentParser(prog="suite.py", description="Run all benchmarks in one go, or one of them.")
    add_options(parser, RUNS, MINUTES, RESULTS, EXPERIMENTS)
    commands = parser.add_subparsers(dest="experiment", metavar="COMMAND", help="instead of all:")
    for name, experiment in EXPERIMENTS.items():
        command = commands.add_parser(name, help=experiment.about, description=f"{experiment.about.capitalize()}.")
        add_options(command, experiment.runs, None, None, SCENARIOS if experiment.programs else ())
        for option, (default, text) in experiment.numbers.items():
            several = "+" if isinstance(default, tuple) else None
            about = f"{text} (default: %(default)s)"
            command.add_argument(
                f"--{option}", type=positive(int), nargs=several, default=default, metavar="N", help=about
            )
    report = commands.add_parser("report", help="rewrite the documents from results, and print the bars")
    report.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where they are (%(default)s)")
    report.add_argument("--strict", action="store_true", help="exit status 1 when a bar is not met, or not measured")
    for each in (parser, report):
        each.add_argument("--root", type=Path, default=ROOT, metavar="DIR", help="of README.md and docs (%(default)s)")
    return parser.parse_args(argv, namespace=Options())


def run(options: Options) -> int:
    """Run one experiment, print its tables, and write what was asked for; return 1 when nothing could be measured."""
    bench = Bench(options)
    if bench.machine["editable_finder"]:
        bench.console.print(EDITABLE, highlight=False)
    experiment = EXPERIMENTS[options.experiment]
    programs = options.only or experiment.programs
    scenarios = experiment.others(options) if experiment.others else [SCENARIOS[name] for name in programs]
    found = bench.each(scenarios, experiment.compare)
    if not found:
        return 1
    written = bench.write(**experiment.collect(options, found))
    for name, (wanted, table) in TABLES.items():
        if wanted == options.experiment:
            bench.console.print(table(Results({wanted: written})).rich(name))
    if options.results is not None and options.experiment in PICTURES:
        draw(options.experiment, written, options.results)
    return 0


def draw(experiment: str, written: dict[str, Any], directory: Path) -> None:
    """Draw the results of an experiment, if matplotlib is installed."""
    try:
        from benchmarks import pictures
    except ModuleNotFoundError as error:
        say(f"no picture: {error} (pip install '.[bench]')")
    else:
        getattr(pictures, experiment)(written, directory / f"{experiment}.png")


def report(options: Options) -> int:
    """Rewrite the documents, and print the bars; return 1 when that fails, or with `--strict` a bar is not met."""
    results = Results.read(options.results or RESULTS)
    status = rewrite(results, options.root)
    Console().print(bar_table(results).rich("bars"))
    return status or int(options.strict and not all(bar.met for bar in bars(results)))


def say(text: str) -> None:
    """Report the progress, before the output of the parts."""
    print(f"bench: {text}", flush=True)


def run_all(options: Options) -> int:
    """Run the experiments, each in its own process, then `report`; return 1 when a part could not be measured."""
    options.results = (options.results or RESULTS).resolve()
    shares = {name: one.share for name, one in EXPERIMENTS.items() if not options.only or name in options.only}
    start = time.monotonic()
    torch = machine.torch_kind()
    if torch not in {None, "CPU"}:
        say(f"torch is a {torch} build, whose images are larger and slower to restore than a CPU build's")
    failed = []
    for place, name in enumerate(shares):
        passed = (time.monotonic() - start) / MINUTE
        share = shares[name] / sum(list(shares.values())[place:])
        planned = max(((options.minutes or MINUTES) - passed) * share, 0.01)
        say(f"{name}, part {place + 1} of {len(shares)}: {planned:.1f} minutes planned, {passed:.1f} have passed")
        argv = [sys.executable, "-m", "benchmarks.suite", name, "--runs", str(options.runs)]
        argv += ["--minutes", f"{planned:.2f}", "--results", str(options.results)]
        if subprocess.run(argv, env=environment(), cwd=ROOT, check=False).returncode != 0:
            failed.append(name)
    status = report(options)
    say(f"{(time.monotonic() - start) / MINUTE:.1f} minutes in all; results are in {options.results}")
    if failed:
        say(f"not measured: {', '.join(failed)}; what they have said is above")
    return status or int(bool(failed))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command, and return the exit status."""
    options = parse(argv)
    return {"": run_all, "report": report}.get(options.experiment, run)(options)


if __name__ == "__main__":
    sys.exit(main())
