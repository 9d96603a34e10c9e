"""
Compare what was measured with what the project promises: bar, measured value, and whether it is met.

All values are medians of one run of `make bench` on one machine, read from the files that it has written; a bar
without its file is not measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import END, FIRST
from benchmarks.snapshots import CRIU, ENGINES, NATIVE
from benchmarks.ways import (
    ARITHMETIC,
    BARE,
    BY_CRIU,
    BY_NATIVE,
    CONVENTIONAL,
    COPIED,
    FORK,
    RAW_COPIED,
    TRUE,
    WARM,
)


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


class Missing(Exception):
    """Something was not measured."""


class Results:
    """The results of the experiments."""

    def __init__(self, files: dict[str, Any]) -> None:
        """Use the JSON values, by experiment."""
        self.files = files

    @classmethod
    def read(cls, directory: Path) -> Results:
        """Read the JSON files of a directory."""
        return cls({path.stem: json.loads(path.read_text(encoding="utf-8")) for path in directory.glob("*.json")})

    def get(self, *keys: str) -> Any:
        """Return a value: the experiment's name, then the way into its JSON; raise Missing where it is not there."""
        value: Any = self.files
        for key in keys:
            if not isinstance(value, dict) or value.get(key) is None:
                raise Missing
            value = value[key]
        return value

    def start(self, scenario: str, way: str, moment: str) -> float:
        """Return a median of `startup`, ms."""
        return float(self.get("startup", "scenarios", scenario, "variants", way, moment, "median"))


Held = tuple[str, str, bool]
"""The most that a value may be, the value, and whether it is so."""
Hold = Callable[[Results], Held]


def at_most(limit: float, unit: str, measure: Callable[[Results], float]) -> Hold:
    """Return a check that a measured value is at most a limit."""

    def hold(results: Results) -> Held:
        measured = measure(results)
        return f"{limit:.4g} {unit}", f"{measured:.3g} {unit}", measured <= limit

    return hold


def empty(results: Results) -> Held:
    """Compare the empty program with the interpreter that does nothing."""
    limit, measured = results.start("empty", BARE, END), results.start("empty", BY_CRIU, END)
    return f"{limit:.2f} ms", f"{measured:.2f} ms", measured <= limit


def faster(scenario: str, moment: str, limit: float, way: str = BY_CRIU) -> Hold:
    """Return a check that a program starts so many times faster than conventionally."""

    def hold(results: Results) -> Held:
        slow, fast = results.start(scenario, CONVENTIONAL, moment), results.start(scenario, way, moment)
        most = f"conventional / {limit:.0f} = {slow / limit:.1f} ms"
        return most, f"conventional / {slow / fast:.1f} = {fast:.1f} ms", fast <= slow / limit

    return hold


def eight(results: Results, way: str = BY_CRIU) -> float:
    """Return how many times as long as one eight at once take."""
    one, eight = (results.get("copies", "at_once", way, count, FIRST, "median") for count in ("1", "8"))
    return float(eight / one)


def together(results: Results) -> Held:
    """Compare eight copies at once with one, and give the same ratio of programs that only compute."""
    limit, measured, met = at_most(4.0, "times", eight)(results)
    with suppress(Missing):
        measured += f" ({eight(results, ARITHMETIC):.3g} for {ARITHMETIC} alone)"
    return limit, measured, met


def firsts(one: tuple[str, str], other: tuple[str, str]) -> Callable[[Results], float]:
    """Return a function for the ratio of the times to the first output of two programs and ways."""
    return lambda results: results.start(*one, FIRST) / results.start(*other, FIRST)


def native_over(scenario: str, way: str, moment: str = FIRST) -> Callable[[Results], float]:
    """Return a function for the ratio of the times of a program by the native engine and by another way."""
    return lambda results: results.start(scenario, BY_NATIVE, moment) / results.start(scenario, way, moment)


def dumps(scenario: str, moment: str, other: str, results: Results) -> float:
    """Return the ratio of two medians of `dump`: the native engine's, and another's."""
    one, two = (results.get("dump", "programs", scenario, moment, way, "median") for way in (NATIVE, other))
    return float(one / two)


def standstill(scenario: str) -> Hold:
    """Return a check that a program stands still for 15 ms and for 1/20 of criu's time at most."""

    def hold(results: Results) -> Held:
        times = results.get("dump", "programs", scenario, "standstill")
        if set(ENGINES) - set(times):
            raise Missing
        native, criu = (times[way]["median"] for way in ENGINES)
        limit = min(STANDSTILL, criu / 20)
        return f"{limit:.3g} ms", f"{native:.3g} ms (criu: {criu:.3g})", native <= limit

    return hold


def faults(scenario: str, least: tuple[int, int], results: Results) -> float:
    """Return the page faults of a native copy, from the jump to its exit, where Python is new enough."""
    version = tuple(map(int, results.get("native", "machine", "python").split(".")[:2]))
    if version < least:
        raise Missing
    return float(results.get("native", "programs", scenario, "faults_program", "median"))


def crowd(results: Results) -> float:
    """Return how many times as long 64 empty copies at once take by the native engine as by criu."""
    at_once = (results.get("native", "programs", "empty", "at_once", way, FIRST, "median") for way in (NATIVE, CRIU))
    one, two = at_once
    return float(one / two)


def spawned(results: Results) -> float:
    """Return how many times as long native copies of the smallest program take as interpreters, several at once."""
    rates = (results.get("spawn", "copies_per_second", "empty", way, "at_once", "median") for way in (BARE, BY_NATIVE))
    bare, native = rates
    return float(bare / native)


def private(results: Results) -> float:
    """Return how many times as much memory of its own one of several native copies has as one by criu."""
    native, criu = (results.get("copies", "bytes", way, "private") for way in (BY_NATIVE, BY_CRIU))
    return float(native / criu)


def share(results: Results) -> float:
    """Compare the memory of a copy with that of a conventional start, percent."""
    sizes = results.get("copies", "bytes")
    return float(100 * sizes[BY_CRIU]["one_of_many"] / sizes[CONVENTIONAL]["alone"])


def standby(results: Results) -> float:
    """Return by how many ms a standby copy of the smallest program is slower than a process that does nothing."""
    return float(results.get("standby", "standby", "empty", "over_bare"))


def workers(other: str, results: Results) -> float:
    """Return how many times as long another context of multiprocessing takes to the first results."""
    ours, theirs = (results.get("workers", "workers", "pandas", kind, "median") for kind in ("warm_context", other))
    return float(ours / theirs)


STANDSTILL = 15.0  # ms
OVER_RAW = firsts(("empty", COPIED), ("empty", RAW_COPIED))
MEMORY = firsts(("numpy", BY_CRIU), ("empty", BY_CRIU))
BARS: dict[str, Hold] = {
    f"empty program, launch to exit, against `{BARE}`": empty,
    "launcher over raw `criu restore` of the same image, memory copied, first output": at_most(1.1, "times", OVER_RAW),
    "pandas, warmed up, first output": faster("pandas", FIRST, 20, WARM),
    "pandas, imports done, first output": faster("pandas", FIRST, 20),
    "torch, warmed up, first output": faster("torch", FIRST, 60, WARM),
    "torch, imports done, first output": faster("torch", FIRST, 60),
    "torch + transformers + pandas, warmed up, first output": faster("stack", FIRST, 100, WARM),
    "torch + transformers + pandas, imports done, first output": faster("stack", FIRST, 100),
    "torch, start to exit": faster("torch", END, 25),
    "1 GB of numpy, first output, over the empty program's": at_most(2.0, "times", MEMORY),
    "8 copies of torch at once, all first outputs, over one": together,
    "memory of one of 8 idle torch copies (PSS), of a conventional one": at_most(15.0, "percent", share),
    "standby, first output, over fork and exec of `/bin/true`": at_most(4.0, "ms", standby),
    "native: empty program, first output, over criu's": at_most(0.35, "times", native_over("empty", BY_CRIU)),
    f"native: empty program, launch to exit, over `{BARE}`": at_most(0.3, "times", native_over("empty", BARE, END)),
    "native: empty program, first output, over fork, exec and exit of `/bin/true`": at_most(
        3.0, "times", native_over("empty", TRUE)
    ),
    "native: empty program, page faults from the jump to the exit": at_most(
        420, "faults", partial(faults, "empty", (3, 11))
    ),
    "native: pandas, page faults from the jump to the exit, Python 3.12 or newer": at_most(
        1900, "faults", partial(faults, "pandas", (3, 12))
    ),
    "native: torch, first output, over criu's": at_most(0.65, "times", native_over("torch", BY_CRIU)),
    "native: torch + transformers + pandas, first output, over criu's": at_most(
        0.65, "times", native_over("stack", BY_CRIU)
    ),
    "native: pandas, first output, over `os.fork` of a warm parent": at_most(1.2, "times", native_over("pandas", FORK)),
    "native: pandas, imports done, first output": faster("pandas", FIRST, 20, BY_NATIVE),
    "native: torch, imports done, first output": faster("torch", FIRST, 60, BY_NATIVE),
    "native: torch + transformers + pandas, imports done, first output": faster("stack", FIRST, 100, BY_NATIVE),
    "native: 64 empty copies at once, all first outputs, over criu's": at_most(0.5, "times", crowd),
    f"native: empty copies, 8 at a time, over as many `{BARE}`": at_most(0.5, "times", spawned),
    "native: pandas, dump, over criu's": at_most(0.3, "times", partial(dumps, "pandas", "dump", CRIU)),
    "native: torch, dump, over criu's": at_most(0.3, "times", partial(dumps, "torch", "dump", CRIU)),
    "native: 1 GB of numpy, dump, over writing as much with fsync": at_most(
        1.5, "times", partial(dumps, "numpy", "dump", "write and fsync")
    ),
    "native: pandas, standstill of a dump": standstill("pandas"),
    "native: torch, standstill of a dump": standstill("torch"),
    "native: 1 GB of numpy, standstill of a dump": standstill("numpy"),
    "native: memory of its own of one of 8 idle torch copies, over criu's": at_most(1.0, "times", private),
    "4 workers with pandas, first results, over spawn's": at_most(1 / 8, "times", partial(workers, "spawn")),
    "4 workers with pandas, first results, over forkserver's": at_most(1 / 3, "times", partial(workers, "forkserver")),
}


def bars(results: Results) -> Iterator[Bar]:
    """Yield all bars."""
    for name, hold in BARS.items():
        try:
            yield Bar(name, *hold(results))
        except Missing:
            yield Bar(name, "", "", met=None)
