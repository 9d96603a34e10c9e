"""The measuring loop: everything in turns, for as many rounds as fit into the time; and what was left out."""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console

from benchmarks import machine
from benchmarks.measure import RunError, Unavailable, plain
from benchmarks.scenarios import Scenario
from benchmarks.snapshots import CRIU, NATIVE, NotEligible, Snapshot, environment, take_snapshot
from libcriu_py.criu.find import find_criu
from libcriu_py.errors import BinaryNotFound, CriuError

T = TypeVar("T")
K = TypeVar("K", bound="Hashable")
V = TypeVar("V")
MINUTE = 60.0  # seconds
LEAST = 5
"""Rounds that are made even where that takes longer than planned: the median of fewer says little."""
STRETCH = 1.5
"""How many times the planned time may be taken for these."""


class Options(argparse.Namespace):
    """The command line; options of single commands are at the end."""

    experiment = ""
    """One of them, or `report`; empty for all."""
    runs: int
    minutes: float | None
    results: Path | None
    """Directory for JSON and pictures; None writes neither."""
    only: list[str] = []  # noqa: RUF012 - never changed
    counts: list[int]
    sizes: list[int]
    shares: list[int]
    megabytes: int
    count: int
    together: int
    root: Path
    strict = False


class Experiment(NamedTuple):
    """One of the things that are measured, in turns and under one name."""

    about: str
    """What it compares, in a sentence for the command line."""
    compare: Callable[[Bench, Scenario, Path, Budget], Any]
    """Measures a program, with a directory for snapshots, and its share of the time."""
    collect: Callable[[Options, dict[str, Any]], dict[str, Any]]
    """Returns the JSON values of the measured programs."""
    share: int
    """Of the time for all, in relation to the others'."""
    runs: int
    """Rounds by default."""
    programs: tuple[str, ...] = ()
    """Of the scenarios, those that are measured where `--only` selects none."""
    others: Callable[[Options], list[Scenario]] | None = None
    """Returns other programs, of which none is selected."""
    numbers: dict[str, tuple[int | tuple[int, ...], str]] = {}  # noqa: RUF012 - never changed
    """More options: a default and what it is."""


def round_robin(items: Sequence[T], rounds: int) -> Iterator[tuple[int, T]]:
    """
    Yield every item once in each round, with the round's number, beginning with the next item each time.

    What disturbs the machine for a while then hits all items alike, and none of them always follows the same other.
    """
    for number in range(rounds):
        for offset in range(len(items)):
            yield number, items[(number + offset) % len(items)]


class Budget:
    """Rounds, and the time that they have."""

    def __init__(self, most: int, seconds: float | None = None) -> None:
        """Begin now, with at most so many rounds; without a time it is just as many, however long that takes."""
        now = time.monotonic()
        self.most = most
        self.least = most if seconds is None else min(LEAST, most)
        self.end = math.inf if seconds is None else now + seconds
        """Until when more than the least number of rounds are begun."""
        self.last = math.inf if seconds is None else now + STRETCH * seconds
        """Until when any are, but for one."""

    @property
    def exhausted(self) -> bool:
        """Return whether there is no time to begin anything more."""
        return time.monotonic() >= self.last

    def part(self, left: int) -> Budget:
        """Return the share of one of `left` parts that are to come; what it does not use the later ones have."""
        now = time.monotonic()
        part = Budget(self.most)
        part.least = self.least
        part.end = now + (self.end - now) / left
        part.last = now + (self.last - now) / left
        return part

    def rounds(self, items: Sequence[T], warm_up: int) -> Iterator[tuple[int, T]]:
        """Yield as `round_robin` does, for as many rounds as there may be after those that do not count."""
        begun = longest = 0.0
        for turn, (number, item) in enumerate(round_robin(items, warm_up + self.most)):
            if turn % len(items) == 0:
                now = time.monotonic()
                # The first round fills caches, and says nothing about the others.
                longest = max(longest, now - begun) if number > 1 else now - begun
                begun = now
                end = self.end if number - warm_up >= self.least else self.last
                if number > warm_up and now + longest > end:
                    return
            elif number > warm_up and self.exhausted:
                return
            yield number, item


class Bench:
    """What one experiment measures with, says, and writes."""

    def __init__(self, options: Options) -> None:
        """Begin; the time runs from now on."""
        self.options = options
        self.console = Console()
        self.budget = Budget(options.runs, None if options.minutes is None else options.minutes * MINUTE)
        self.skipped: list[str] = []
        self.refused: dict[str, str] = {}
        """Why the native engine cannot dump which of the programs."""
        self.counted: list[int] = []
        """How many rounds were made of each thing."""
        try:
            criu: str | None = find_criu()
        except BinaryNotFound as error:
            criu = None
            self.skip(str(error))
        self.machine = machine.describe(criu, environment())

    def skip(self, what: str) -> None:
        """Leave something out, and say so, with the reason, here and in the JSON."""
        if what not in self.skipped:
            self.skipped.append(what)
            self.console.print(f"[yellow]skipped:[/yellow] {what}", highlight=False, soft_wrap=True)

    def each(
        self, scenarios: Sequence[Scenario], compare: Callable[[Bench, Scenario, Path, Budget], V]
    ) -> dict[str, V]:
        """Return what was measured of each program that can be measured; one that fails is left out."""
        found: dict[str, V] = {}
        for place, scenario in enumerate(scenarios):
            missing = scenario.missing()
            if missing or self.budget.exhausted:
                why = f"not installed: {', '.join(missing)} (pip install '.[bench]')" if missing else "no time was left"
                self.skip(f"{scenario.label}: {why}")
                continue
            budget = self.budget.part(len(scenarios) - place)
            with tempfile.TemporaryDirectory(prefix="libcriu_py-bench-") as made:
                try:
                    found[scenario.name] = compare(self, scenario, Path(made).resolve(), budget)
                except (RunError, Unavailable, CriuError) as error:
                    self.skip(f"{scenario.label}: {error}")
        return found

    def snapshot(
        self, scenario: Scenario, directory: Path, memory: str = "auto", *, warm: bool = False, engine: str = CRIU
    ) -> Snapshot | None:
        """Take a snapshot, as `take_snapshot` does; return None, and leave it out, when that fails."""
        place = directory / f"{engine}-{memory}{'-warm' * warm}"
        with self.console.status(f"{scenario.label}: snapshot"):
            try:
                return take_snapshot(scenario, place, memory, warm=warm, engine=engine)
            except NotEligible as refusal:
                self.refused[scenario.name] = str(refusal)
                self.skip(f"{scenario.label}, {NATIVE}: not eligible, as it {refusal}")
                return None
            except (RunError, Unavailable) as error:
                self.skip(f"snapshot of {scenario.label}: {error}")
                return None

    def turns(
        self,
        what: str,
        ways: Mapping[K, Callable[[], V]],
        *,
        warm_up: int = 1,
        budget: Budget | None = None,
        complete: bool = False,
    ) -> dict[K, list[V]]:
        """
        Call each way once in each round, for as many rounds as there may be; leave out one that fails from then on.

        Args:
            what: What is measured, in a few words.
            ways: Functions that measure once, by name.
            warm_up: Rounds before those that count.
            budget: Of the rounds; that of all by default.
            complete: Whether to raise RunError when one has failed, as nothing can be compared.

        Returns:
            What was measured, of those that never failed.
        """
        budget = budget or self.budget
        found: dict[K, list[V]] = {way: [] for way in ways}
        start = time.monotonic()
        with self.console.status(what) as status:
            for number, way in budget.rounds(list(ways), warm_up):
                if way not in found:
                    continue
                status.update(f"{what}: round {number + 1}, {words(way)}")
                try:
                    value = ways[way]()
                except (RunError, CriuError) as error:
                    del found[way]
                    self.skip(f"{words(way)} of {what}: {error}")
                    continue
                if number >= warm_up:
                    found[way].append(value)
        rounds = min(map(len, found.values()), default=0)
        self.counted.append(rounds)
        seconds = time.monotonic() - start
        self.console.print(f"{what}: {rounds} round{'s'[: rounds != 1]} in {seconds:.0f} s", highlight=False)
        if rounds < budget.least:
            self.skip(f"{what}: {budget.least - rounds} of {budget.least} rounds, for which no time was left")
        if complete and len(found) < len(ways):
            raise RunError("nothing to compare with is left")
        return found

    @property
    def runs(self) -> str:
        """Return how many rounds counted, as `12` or `5 to 12`."""
        least, greatest = min(self.counted, default=0), max(self.counted, default=0)
        return str(least) if least == greatest else f"{least} to {greatest}"

    def write(self, **values: Any) -> dict[str, Any]:
        """Return machine, rounds, values and what was left out, and write them as JSON where that was asked for."""
        described = {**self.machine, "load_at_end": list(os.getloadavg())}
        refused = {"not_eligible": self.refused} if self.refused else {}
        written = {"machine": described, "runs": self.runs, **plain(values), **refused, "skipped": self.skipped}
        if self.options.results is not None:
            self.options.results.mkdir(parents=True, exist_ok=True)
            path = self.options.results / f"{self.options.experiment}.json"
            path.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
        return written


def words(way: object) -> str:
    """Return the name of a way to start, which may have parts."""
    return ", ".join(map(str, way)) if isinstance(way, tuple) else str(way)
