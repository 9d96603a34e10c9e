"""
Hold what was measured against what the project promises: a table of bar, measured value, and whether it is met.

All values are medians of one run of ``make bench`` on one machine, read from the files that it has written; a bar whose
file is not there is shown as not measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console
from rich.table import Table

from benchmarks.variants import ARITHMETIC, BARE, CONVENTIONAL, COPIED, NATIVE, RAW_COPIED, WARM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULTS = Path(__file__).resolve().parent / "results"
FIRST, END = "first_output_ms", "end_ms"
WHOLE = ("copies", "bytes", CONVENTIONAL, "alone")
MOST = {"launcher": 1.10, "memory": 2.0, "together": 4.0, "share": 15.0, "standby": 4.0}
BAR_WORDS = ("bar", "at most", "measured", "met?")


class Bar(NamedTuple):
    """A promise, and what was measured."""

    name: str
    limit: str
    measured: str
    met: bool | None
    """None where it was not measured."""

    @property
    def verdict(self) -> str:
        """Return whether it is met, in a word or three."""
        return {True: "yes", False: "no", None: "not measured"}[self.met]


class Held(NamedTuple):
    """The most that a value may be, the value, and whether it is so."""

    limit: str
    measured: str
    met: bool


class Missing(Exception):
    """Something was not measured."""


class Results:
    """The files that one run of the benchmarks has written."""

    def __init__(self, directory: Path) -> None:
        """
        Read them.

        Args:
            directory: Where they are.
        """
        self.files: dict[str, Any] = {
            path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))
        }

    def get(self, *keys: str) -> Any:
        """
        Return a value of one of the files.

        Args:
            keys: The file's name without its ending, then the way into it.

        Raises:
            Missing: It is not there.
        """
        value: Any = self.files
        for key in keys:
            if not isinstance(value, dict) or value.get(key) is None:
                raise Missing
            value = value[key]
        return value

    def start(self, scenario: str, variant: str, moment: str) -> float:
        """
        Return a median of ``benchmarks.startup``, ms.

        Args:
            scenario: The program.
            variant: How it was started.
            moment: FIRST or END.

        Raises:
            Missing: It was not measured.
        """
        return float(self.get("startup", "scenarios", scenario, "variants", variant, moment, "median"))


def at_most(limit: float, unit: str, measured: float) -> Held:
    """
    Hold a value against the most that it may be.

    Args:
        limit: The most.
        unit: Of both.
        measured: The value.
    """
    return Held(f"{limit:.4g} {unit}", f"{measured:.3g} {unit}", measured <= limit)


def empty(results: Results) -> Held:
    """Compare the empty program with the interpreter that does nothing."""
    limit, measured = results.start("empty", BARE, END), results.start("empty", NATIVE, END)
    return Held(f"{limit:.2f} ms", f"{measured:.2f} ms", measured <= limit)


def launcher(results: Results) -> Held:
    """Compare the launcher with criu's own command, for the images of the smallest program."""
    measured = results.start("empty", COPIED, FIRST) / results.start("empty", RAW_COPIED, FIRST)
    return at_most(MOST["launcher"], "times", measured)


def faster(scenario: str, moment: str, limit: float, variant: str = NATIVE) -> Callable[[Results], Held]:
    """
    Compare a program with its conventional start.

    Args:
        scenario: The program.
        moment: FIRST or END.
        limit: How many times as fast it must be.
        variant: How it is started: of a snapshot with its imports done, or WARM.
    """

    def hold(results: Results) -> Held:
        slow, fast = results.start(scenario, CONVENTIONAL, moment), results.start(scenario, variant, moment)
        most = f"conventional / {limit:.0f} = {slow / limit:.1f} ms"
        return Held(most, f"conventional / {slow / fast:.1f} = {fast:.1f} ms", fast <= slow / limit)

    return hold


def memory(results: Results) -> Held:
    """Compare 1 GB of numpy with the empty program."""
    measured = results.start("numpy", NATIVE, FIRST) / results.start("empty", NATIVE, FIRST)
    return at_most(MOST["memory"], "times", measured)


def together(results: Results) -> Held:
    """Compare eight copies at once with one, and say what the processors allow eight programs that only compute."""

    def times(way: str) -> float:
        one, eight = (results.get("copies", "at_once", way, count, FIRST, "median") for count in ("1", "8"))
        return float(eight / one)

    held = at_most(MOST["together"], "times", times(NATIVE))
    with suppress(Missing):
        return held._replace(measured=f"{held.measured} ({times(ARITHMETIC):.3g} for {ARITHMETIC} alone)")
    return held


def share(results: Results) -> Held:
    """Compare the memory of a copy with that of a conventional start."""
    copy, whole = results.get("copies", "bytes", NATIVE, "one_of_many"), results.get(*WHOLE)
    return at_most(MOST["share"], "percent", 100 * copy / whole)


def standby(results: Results) -> Held:
    """Compare a copy that waits with a process that does nothing, for the smallest program."""
    return at_most(MOST["standby"], "ms", results.get("standby", "standby", "empty", "over_bare"))


BARS: dict[str, Callable[[Results], Held]] = {
    f"empty program, launch to exit, against `{BARE}`": empty,
    "launcher over raw `criu restore` of the same image, memory copied, first output": launcher,
    "pandas, warmed up, first output": faster("pandas", FIRST, 20, WARM),
    "pandas, imports done, first output": faster("pandas", FIRST, 20),
    "torch, warmed up, first output": faster("torch", FIRST, 60, WARM),
    "torch, imports done, first output": faster("torch", FIRST, 60),
    "torch + transformers + pandas, warmed up, first output": faster("stack", FIRST, 100, WARM),
    "torch + transformers + pandas, imports done, first output": faster("stack", FIRST, 100),
    "torch, start to exit": faster("torch", END, 25),
    "1 GB of numpy, first output, over the empty program's": memory,
    "8 copies of torch at once, all first outputs, over one": together,
    "memory of one of 8 idle torch copies (PSS), of a conventional one": share,
    "standby, first output, over fork and exec of `/bin/true`": standby,
}


def bars(results: Results) -> Iterator[Bar]:
    """
    Yield all bars.

    Args:
        results: What was measured.
    """
    for name, hold in BARS.items():
        try:
            yield Bar(name, *hold(results))
        except Missing:
            yield Bar(name, "", "", met=None)


def main(argv: list[str] | None = None) -> int:
    """
    Print the table.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or with ``--strict`` 1 when a bar is not met, or was not measured.
    """
    parser = argparse.ArgumentParser(prog="bars.py", description="Hold the results against the project's bars.")
    parser.add_argument(
        "results", type=Path, nargs="?", default=RESULTS, help="directory of the benchmarks' JSON files"
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a bar is not met, or not measured")
    options = parser.parse_args(argv)
    every = list(bars(Results(options.results)))
    table = Table(*BAR_WORDS, title="Bars: medians of one run on one machine")
    for bar in every:
        color = {True: "green", False: "red", None: "yellow"}[bar.met]
        table.add_row(bar.name, bar.limit, bar.measured, f"[{color}]{bar.verdict}[/{color}]")
    Console().print(table)
    return int(options.strict and not all(bar.met for bar in every))


if __name__ == "__main__":
    sys.exit(main())
