"""
Measure starts of other people's software, conventional and warm, in turns.

    python -m benchmarks.integrations [--runs N] [MODULE ...]

All modules of this package are measured, and the table goes into docs/integrations/README.md; those that are named are
measured alone, and nothing is written.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from benchmarks import integrations
from benchmarks.integrations import Case
from benchmarks.measure import Summary, Unavailable, ratio, summarize
from benchmarks.report import Table, cell, fill

PAGE = Path(__file__).parents[2] / "docs" / "integrations" / "README.md"
RUNS = 9


class Measured:
    """What has been measured of a case."""

    def __init__(self, case: Case, place: Path) -> None:
        """Have measured nothing yet."""
        self.case = case
        self.place = place
        self.problem = ""
        self.conventional: list[float] = []
        self.warm: list[float] = []

    def prepare(self) -> None:
        """Make what both ways need."""
        self.place.mkdir()
        self.attempt(lambda: self.case.prepare(self.place))

    def attempt(self, work: Callable[[], None]) -> None:
        """Do something of the case, which is measured no more if that fails."""
        try:
            work()
        except Unavailable as error:
            self.problem = str(error)
        except Exception as error:  # noqa: BLE001 - whatever other people's software raises
            traceback.print_exc()
            self.problem = f"{type(error).__name__}: {error}"

    def measure(self, *, warm_first: bool) -> None:
        """Start it once in both ways."""

        def both() -> None:
            ways = [(self.conventional, self.case.conventional), (self.warm, self.case.warm)]
            for times, start in reversed(ways) if warm_first else ways:
                times.append(start(self.place) * 1000)

        if not self.problem:
            self.attempt(both)

    def row(self) -> list[str]:
        """Return its cells for the table."""
        slow, fast = summarize(self.conventional), summarize(self.warm)
        gain = ratio(slow, fast)
        verdict = "" if gain >= self.case.bar else ", missed"
        bar = f"{self.case.bar:g}{verdict}"
        return [self.case.name, _cell(slow), _cell(fast), f"{gain:.1f}", bar]


def _cell(summary: Summary) -> str:
    return cell(summary._asdict())


def find(names: Sequence[str]) -> list[Case]:
    """Return the cases of modules of this package; of all if none is named."""
    found = [module.name for module in pkgutil.iter_modules(integrations.__path__) if module.name != "__main__"]
    modules = [importlib.import_module(f"{integrations.__name__}.{name}") for name in names or found]
    return [case for module in modules for case in module.CASES]


def measure(cases: Sequence[Case], runs: int, directory: Path) -> list[Measured]:
    """Measure cases in turns: each once in both ways, and all of them again."""
    measured = [Measured(case, directory / str(number)) for number, case in enumerate(cases)]
    with ExitStack() as stack:
        for one in measured:
            print(f"preparing: {one.case.name}", file=sys.stderr, flush=True)
            stack.callback(one.case.clean, one.place)
            one.prepare()
        for turn in range(-1, runs):
            print(f"turn {turn + 1} of {runs}", file=sys.stderr, flush=True)
            for one in measured:
                one.measure(warm_first=turn % 2 == 1)
            if turn < 0:  # what was read from the disk for the first time
                for one in measured:
                    one.conventional.clear()
                    one.warm.clear()
    return measured


def table(measured: Sequence[Measured], runs: int) -> str:
    """Return the table of the document."""
    heads = ["to the first result, ms", "conventional", "warm", "times as fast", "bar"]
    skipped = [f"{one.case.name}: {one.problem}" for one in measured if one.problem]
    rows = [one.row() for one in measured if not one.problem]
    day = datetime.now(timezone.utc).date()
    note = f"\nMedians (quartiles) of {runs} runs in turns, {day}, Python {sys.version.split()[0]}.\n"
    return f"{Table(heads, rows, skipped)}{note}"


def main() -> int:
    """Measure; return 1 if something could not be, or has missed its bar."""
    parser = argparse.ArgumentParser(description="Starts of other people's software, conventional and warm.")
    parser.add_argument("--runs", type=int, default=RUNS, help="default: %(default)s")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="default: all, and write the table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="integrations-", ignore_cleanup_errors=True) as directory:
        measured = measure(find(options.modules), options.runs, Path(directory))
    text = table(measured, options.runs)
    print(text)
    if not options.modules:
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), "integrations", text), encoding="utf-8")
    return int("missed" in text or "Not measured" in text)


if __name__ == "__main__":
    sys.exit(main())
