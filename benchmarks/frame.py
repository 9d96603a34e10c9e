"""What all benchmarks share: their common options, what they say meanwhile, measuring in turns, and their JSON."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.console import Console

from benchmarks import machine
from benchmarks.budget import Budget
from benchmarks.common import RunError
from benchmarks.scenarios import LABELS, SCENARIOS
from benchmarks.snapshots import Unavailable, environment
from libcriu_py.criu.find import find_criu
from libcriu_py.errors import BinaryNotFound, CriuError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from typing_extensions import Self

    from benchmarks.scenarios import Scenario

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
MINUTE = 60.0  # seconds


class Options(argparse.Namespace):
    """The options that all have."""

    runs: int
    minutes: float | None
    json: Path | None


class Selection(Options):
    """With those that select programs (`Parser.add_only`)."""

    only: list[str]


Read = TypeVar("Read", bound=Options)
O_co = TypeVar("O_co", bound=Options, covariant=True)


class Parser(argparse.ArgumentParser):
    """A command line with these options."""

    def __init__(self, name: str, description: str, runs: int) -> None:
        """
        Begin.

        Args:
            name: The file's.
            description: What is measured, in a sentence.
            runs: The default number of rounds.
        """
        super().__init__(prog=name, description=description)
        self.counts: list[str] = []
        self.add_count("--runs", "--rounds", default=runs, text="rounds; with --minutes, at most")
        self.add_argument(
            "--minutes",
            type=float,
            metavar="M",
            help="fit the number of rounds into so much time (default: --runs, however long that takes)",
        )
        self.add_argument("--json", type=Path, metavar="FILE", help="write JSON")

    def add_count(self, *flags: str, default: int, text: str) -> None:
        """
        Add an option that is a number above zero.

        Args:
            flags: Its names.
            default: Its default.
            text: What it counts.
        """
        action = self.add_argument(
            *flags, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
        self.counts.append(action.dest)

    def add_counts(self, flag: str, default: Sequence[int], text: str) -> None:
        """
        Add an option that is a list of such numbers.

        Args:
            flag: Its name.
            default: Its default.
            text: What they are.
        """
        words = ",".join(map(str, default))
        action = self.add_argument(
            flag,
            type=lambda text: [int(word) for word in text.split(",")],
            default=list(default),
            metavar="N,N...",
            help=f"{text} (default: {words})",
        )
        self.counts.append(action.dest)

    def add_only(self, default: str) -> None:
        """
        Add the option that selects programs.

        Args:
            default: What is measured without it, in words.
        """
        self.add_argument(
            "--only",
            action="append",
            default=[],
            choices=SCENARIOS,
            help=f"measure this program; may be given more than once (default: {default})",
        )

    def add_plot(self) -> None:
        """Add the option for pictures."""
        self.add_argument("--plot", type=Path, metavar="FILE", help="write a PNG, and an SVG beside it")

    def read(self, argv: Sequence[str] | None, options: Read) -> Read:
        """
        Read the command line.

        Args:
            argv: Arguments without the program's name; ``sys.argv`` by default.
            options: Gets the values.
        """
        read = self.parse_args(argv, namespace=options)
        for name in self.counts:
            value = getattr(read, name)
            if min(value if isinstance(value, list) else [value], default=0) < 1:
                self.error(f"--{name} must be at least 1")
        if read.minutes is not None and read.minutes <= 0:
            self.error("--minutes must be above 0")
        return read


class Frame(Generic[O_co]):
    """What one invocation measures with, says, and writes."""

    def __init__(self, options: O_co, console: Console | None = None) -> None:
        """
        Begin; the time runs from now on.

        Args:
            options: The command line.
            console: Where progress and tables are shown.
        """
        self.options = options
        self.console = Console() if console is None else console
        self.budget = Budget(options.runs, None if options.minutes is None else options.minutes * MINUTE)
        self.skipped: list[str] = []
        self.counted: list[int] = []
        """How many rounds were made of each thing."""
        self.machine = machine.describe(self.criu(), environment())

    def criu(self) -> str | None:
        """Find criu for the description of the machine, and say so where there is none."""
        try:
            return find_criu()
        except BinaryNotFound as error:
            self.skip(str(error))
            return None

    def skip(self, what: str) -> None:
        """
        Leave something out, and say so here and in the JSON.

        Args:
            what: What is left out and why, in a sentence.
        """
        if what not in self.skipped:
            self.skipped.append(what)
            self.console.print(f"[yellow]skipped:[/yellow] {what}", highlight=False, soft_wrap=True)

    def has(self, scenario: Scenario) -> bool:
        """
        Return whether a program can be measured, and say what is missing where it cannot.

        Args:
            scenario: The program.
        """
        name, missing = LABELS.get(scenario.name, scenario.name), scenario.missing()
        if missing:
            self.skip(f"{name}: not installed: {', '.join(missing)} (pip install '.[bench]')")
        elif self.budget.exhausted:
            self.skip(f"{name}: no time was left for it")
        else:
            return True
        return False

    def scenarios(self, names: Sequence[str]) -> Iterator[tuple[str, Scenario, Budget]]:
        """
        Yield the programs that can be measured, each with its share of the time.

        Args:
            names: Which there are.
        """
        for place, name in enumerate(names):
            scenario = SCENARIOS[name]()
            if self.has(scenario):
                yield name, scenario, self.budget.part(len(names) - place)

    def each(self, names: Sequence[str], compare: Callable[[Self, Scenario, Path, Budget], V]) -> dict[str, V]:
        """
        Measure the programs that can be measured; one that fails is left out.

        Args:
            names: Which there are.
            compare: Measures one, with a directory for snapshots.

        Returns:
            What was measured, by program.
        """
        found: dict[str, V] = {}
        with self.directory() as directory:
            for name, scenario, budget in self.scenarios(names):
                try:
                    found[name] = compare(self, scenario, directory, budget)
                except (RunError, Unavailable, CriuError) as error:
                    self.skip(f"{LABELS.get(name, name)}: {error}")
        return found

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """Have a directory for snapshots."""
        with tempfile.TemporaryDirectory(prefix="libcriu_py-bench-") as made:
            yield Path(made).resolve()

    def turns(
        self, what: str, ways: Mapping[K, Callable[[], V]], *, warm_up: int = 1, budget: Budget | None = None
    ) -> dict[K, list[V]]:
        """
        Call each way once in each round, for as many rounds as there may be.

        A way that fails is left out from then on.

        Args:
            what: What is measured, in a few words.
            ways: Functions that measure once, by name.
            warm_up: Rounds before those that count.
            budget: Of the rounds; that of all by default.

        Returns:
            What was measured, of those that never failed.
        """
        budget = budget or self.budget
        found: dict[K, list[V]] = {way: [] for way in ways}
        failed: set[K] = set()
        start = time.monotonic()
        with self.console.status(what) as status:
            for number, way in budget.rounds(list(ways), warm_up):
                if way in failed:
                    continue
                status.update(f"{what}: round {number + 1}, {words(way)}")
                try:
                    value = ways[way]()
                except RunError as error:
                    failed.add(way)
                    self.skip(f"{words(way)} of {what}: {error}")
                    continue
                if number >= warm_up:
                    found[way].append(value)
        rounds = min((len(values) for way, values in found.items() if way not in failed), default=0)
        self.finish(what, rounds, budget.least, time.monotonic() - start)
        return {way: values for way, values in found.items() if way not in failed}

    def finish(self, what: str, rounds: int, least: int, seconds: float) -> None:
        """
        Say how many rounds there were.

        Args:
            what: What was measured.
            rounds: How many counted.
            least: How many there should be.
            seconds: How long they took.
        """
        self.counted.append(rounds)
        self.console.print(f"{what}: {rounds} round{'s'[: rounds != 1]} in {seconds:.0f} s", highlight=False)
        if rounds < least:
            self.skip(f"{what}: {least - rounds} of {least} rounds, for which no time was left")

    @property
    def runs(self) -> str:
        """Return how many rounds counted, as `12` or `5 to 12`."""
        return span(self.counted)

    def write(self, **values: Any) -> None:
        """
        Write JSON where that was asked for: machine, rounds, what was left out, and the rest.

        Args:
            values: The rest.
        """
        if self.options.json is None:
            return
        described = {**self.machine, "load_at_end": list(os.getloadavg())}
        written = {"machine": described, "runs": self.runs, **values, "skipped": self.skipped}
        self.options.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


def words(way: object) -> str:
    """
    Write the name of a way to start, which may have parts.

    Args:
        way: The name.
    """
    return ", ".join(map(str, way)) if isinstance(way, tuple) else str(way)


def span(counts: Sequence[int]) -> str:
    """
    Write numbers as the least and the greatest of them.

    Args:
        counts: The numbers.
    """
    least, greatest = min(counts, default=0), max(counts, default=0)
    return str(least) if least == greatest else f"{least} to {greatest}"
