"""
Compare a program's conventional start with ``libcriu-py run``.

The same images are also restored with the ``criu restore`` command and with
pycriu, so that what the hand-over costs can be told from what CRIU costs. The
variants run in turns; a round to warm the caches is not counted.

Run it as ``python benchmarks/startup.py`` in an environment where the package
is installed with its extra ``bench``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from benchmarks import machine, report, variants
from benchmarks.common import RunError, Sample, measure, round_robin
from benchmarks.report import Outcome
from benchmarks.scenarios import LABELS, SCENARIOS, Scenario
from benchmarks.snapshots import Snapshot, Unavailable, environment, take_snapshot
from benchmarks.variants import ORDER, Variant
from libcriu_py.binary import find_criu
from libcriu_py.errors import BinaryNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 1  # rounds
LAUNCHER_PARTS = {
    "python -I -S -c pass": ["-I", "-S", "-c", "print()"],
    "python -c pass": ["-c", "print()"],
    "python, importing what run imports": [
        "-I",  # the installed package, not one in the working directory
        "-c",
        "import libcriu_py.launcher; print()",
    ],
}

EDITABLE = (
    "[yellow]note:[/yellow] an editable installation makes every start of this Python slower, conventional ones too;"
    " install with: pip install --config-settings editable_mode=compat -e . (or without -e)"
)


class Session:
    """
    What one invocation measures, and what it has to leave out.
    """

    def __init__(self, console: Console, directory: Path, options: Options) -> None:
        """
        Begin.

        Args:
            console: Where progress is shown.
            directory: For the snapshots.
            options: The command line.

        """
        self.console = console
        self.directory = directory
        self.options = options
        self.skipped: list[str] = []

    def skip(self, what: str) -> None:
        """
        Leave something out, and say so here and in the JSON.

        Args:
            what: What is left out and why, in a sentence.

        """
        if what not in self.skipped:
            self.skipped.append(what)
            self.console.print(f"[yellow]skipped:[/yellow] {what}", highlight=False)

    def scenario(self, name: str) -> Outcome | None:
        """
        Measure one scenario with every variant that there is.

        Args:
            name: Its name.

        Returns:
            The measurements, or None when packages are missing.

        """
        scenario = SCENARIOS[name]()
        missing = scenario.missing()
        if missing:
            self.skip(f"{LABELS.get(name, name)}: not installed: {', '.join(missing)} (pip install '.[bench]')")
            return None
        ways = [variants.conventional(scenario)]
        snapshot = self.snapshot(scenario, "auto")
        copied = self.snapshot(scenario, "copy")
        if snapshot is not None:
            ways += self.available(
                lambda: variants.restored(variants.PYTHON, scenario, snapshot),
                lambda: variants.restored(variants.NATIVE, scenario, snapshot),
                lambda: variants.raw(scenario, snapshot),
                lambda: variants.pycriu(scenario, snapshot, self.options.pycriu),
            )
        if copied is not None:
            ways += self.available(lambda: variants.restored(variants.COPIED, scenario, copied))
        samples = self.rounds(name, sorted(ways, key=lambda way: ORDER.index(way.name)))
        return Outcome(name, samples, snapshot, copied)

    def snapshot(self, scenario: Scenario, memory: str) -> Snapshot | None:
        """
        Take a snapshot.

        Args:
            scenario: Of its program.
            memory: As for `take_snapshot`.

        Returns:
            The snapshot, or None when that failed.

        """
        with self.console.status(f"{scenario.name}: snapshot"):
            try:
                return take_snapshot(scenario, self.directory / f"{scenario.name}-{memory}", memory)
            except (RunError, Unavailable) as error:
                self.skip(f"snapshot of {scenario.name}: {error}")
                return None

    def available(self, *makers: Callable[[], Variant]) -> list[Variant]:
        """
        Make variants, and leave out those that are not to be had here.

        Args:
            makers: One for each variant.

        """
        ways = []
        for make in makers:
            try:
                ways.append(make())
            except Unavailable as error:
                self.skip(str(error))
        return ways

    def rounds(self, name: str, ways: list[Variant]) -> dict[str, list[Sample]]:
        """
        Run the variants in turns.

        A variant that fails is left out from then on.

        Args:
            name: What is measured, for the progress line.
            ways: The variants.

        """
        samples: dict[str, list[Sample]] = {way.name: [] for way in ways}
        failed: set[str] = set()
        rounds = WARM_UP + self.options.runs
        with self.console.status(name) as status:
            for number, way in round_robin(ways, rounds):
                if way.name in failed:
                    continue
                status.update(f"{name}: round {number + 1} of {rounds}, {way.name}")
                try:
                    sample = way.start()
                except RunError as error:
                    failed.add(way.name)
                    self.skip(f"{way.name} of {name}: {error}")
                    continue
                if number >= WARM_UP:
                    samples[way.name].append(sample)
        return {way: runs for way, runs in samples.items() if way not in failed}

    def launcher(self) -> dict[str, list[Sample]]:
        """
        Measure the parts of the launcher that are Python's own start.
        """

        def way(name: str, args: list[str]) -> Variant:
            argv = [sys.executable, *args]
            env = environment()
            return Variant(name, lambda: measure(argv, env=env))

        ways = [way(name, args) for name, args in LAUNCHER_PARTS.items()]
        return self.rounds("launcher", ways)


class Options(argparse.Namespace):
    """
    The command line.
    """

    runs: int
    only: list[str]
    json: Path | None
    plot: Path | None
    pycriu: Path | None
    keep: Path | None


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    """
    parser = argparse.ArgumentParser(
        prog="startup.py",
        description="Compare a conventional start with a restored one.",
    )
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="rounds (default: 15)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=SCENARIOS,
        help="measure this scenario; may be given more than once",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG")
    parser.add_argument(
        "--pycriu",
        type=Path,
        metavar="DIR",
        help="built lib directory of CRIU's source, to have pycriu from",
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the snapshots in DIR")
    options = parser.parse_args(argv, namespace=Options())
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def criu_binary(session: Session) -> str | None:
    """
    Find criu for the description of the machine.

    Args:
        session: Told when there is none.

    """
    try:
        return find_criu()
    except BinaryNotFound as error:
        session.skip(str(error))
        return None


def subtitle(described: dict[str, object], runs: int) -> str:
    """
    Describe the measurement in a line for the plot.

    Args:
        described: What ``machine.describe`` returned.
        runs: Rounds that were counted.

    """
    return (
        f"{described['cores']} cores ({described['processor']}),"
        f" Linux {str(described['kernel']).partition('-')[0]},"
        f" Python {described['python']}, CRIU {described['criu']}, {runs} runs each"
    )


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the tables and write the files that were asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.

    """
    options = parse(argv)
    console = Console()
    with ExitStack() as stack:
        directory = options.keep
        if directory is None:
            made = tempfile.TemporaryDirectory(prefix="libcriu_py-bench-")
            directory = Path(stack.enter_context(made))
        directory.mkdir(parents=True, exist_ok=True)
        session = Session(console, directory.resolve(), options)
        described = machine.describe(criu_binary(session), environment())
        if described["editable_finder"]:
            console.print(EDITABLE, highlight=False)
        measured = [session.scenario(name) for name in options.only or SCENARIOS]
        outcomes = [outcome for outcome in measured if outcome is not None]
        launcher = session.launcher()
    if not outcomes:
        return 1
    console.print(report.table(outcomes))
    console.print(report.launcher_table(launcher))
    if options.json is not None:
        described["load_at_end"] = list(os.getloadavg())
        text = report.as_json(outcomes, launcher, described, session.skipped)
        options.json.write_text(text, encoding="utf-8")
    if options.plot is not None:
        report.plot(outcomes, options.plot, subtitle(described, options.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
