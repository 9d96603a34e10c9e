"""Write the results as tables, on the terminal and between the marks of README.md and docs/benchmarks.md."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable

from benchmarks.bars import Missing, Results, bars
from benchmarks.measure import END, FIRST
from benchmarks.scenarios import label
from benchmarks.snapshots import CRIU, NATIVE
from benchmarks.ways import BY_CRIU, BY_NATIVE, CONVENTIONAL, COPIED, NATIVE_WARM, WARM, WAYS

ROOT = Path(__file__).resolve().parent.parent
MARK = "<!-- {name}: {end} -->\n"
MEGA = 1_000_000
NOT_ELIGIBLE = "not eligible"
"""In the cells of the native engine, which refuses a program; why is below the table."""


class Table(NamedTuple):
    """A table, its first column to the left and the others to the right."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    skipped: Sequence[str] = ()
    """What was left out, and why."""

    def without_gaps(self) -> Table:
        """Return it without the columns that are empty, of what was not measured."""
        kept = [place for place, _ in enumerate(self.heads) if not place or any(row[place] for row in self.rows)]
        rows = [[row[place] for place in kept] for row in self.rows]
        return Table([self.heads[place] for place in kept], rows, self.skipped)

    def __str__(self) -> str:
        """Return it as a document has it."""
        lines = [self.heads, ["---", *("---:" for _ in self.heads[1:])], *self.rows]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
        return table + "".join(f"\nNot measured: {sentence}.\n" for sentence in self.skipped)

    def rich(self, name: str) -> RichTable:
        """Return it as a terminal shows it, under the name where nothing else says what it is."""
        title = self.heads[0] or name
        table = RichTable(title=title[0].upper() + title[1:], box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for place, head in enumerate(self.heads):
            table.add_column(head, justify="right" if place else "left", min_width=0 if place else 12)
        for row in self.rows:
            table.add_row(*row)
        return table


def number(value: float) -> str:
    """Return milliseconds, or any number that is to be read at a glance."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def cell(summary: dict[str, float] | None) -> str:
    """Return a median, and the quartiles; nothing for what was not measured."""
    if summary is None:
        return ""
    return f"{number(summary['median'])} ({number(summary['low'])} to {number(summary['high'])})"


def about(results: Results, *, short: bool) -> str:
    """Say what was measured where; the short form is the README's."""
    machine = results.get("startup", "machine")
    virtual = ", a virtual machine" if machine["hypervisor"] else ""
    kind = f" ({machine['criu_kind']})" if machine.get("criu_kind") else ""
    text = (
        f"Medians of {results.get('startup', 'runs')} interleaved runs on "
        f"{machine['cores']} cores of {machine['processor']}{virtual}, {machine['memory_bytes'] / 1e9:.0f} GB of memory"
        f", {machine['system']}, kernel {machine['kernel'].partition('-')[0]}, Python {machine['python']}, "
        f"criu {machine['criu']}{kind}, load {machine['load'][0]:.1f}."
    )
    if short:
        return text + " Copies end with `--exit fast`.\n"
    packages = ", ".join(f"{name} {version}" for name, version in sorted(machine["packages"].items()))
    torch = f" torch is a {machine['torch']} build." if machine.get("torch") else ""
    return f"{text} {machine['date']}; {packages}.{torch}\n"


def is_refused(results: Results, program: str) -> bool:
    """Return whether the native engine cannot dump a program of `startup`."""
    return program in results.files["startup"].get("not_eligible", {})


def main_table(results: Results) -> Table:
    """Return the table of the README: conventional and restored starts."""

    def times(slow: float, way: dict[str, Any] | None, moment: str) -> str:
        if way is None:
            return ""
        fast = way[moment]["median"]
        return f"{number(fast)} (**{slow / fast:.3g}** times)"

    rows = []
    for name, scenario in results.get("startup", "scenarios").items():
        ways = scenario["variants"]
        if ways.get(BY_CRIU) is None:
            continue
        refused = {BY_NATIVE: NOT_ELIGIBLE} if is_refused(results, name) else {}
        cells = [label(name)]
        for moment in (FIRST, END):
            slow = ways[CONVENTIONAL][moment]["median"]
            shown = (refused.get(way) or times(slow, ways.get(way), moment) for way in (BY_NATIVE, BY_CRIU, WARM))
            cells += [number(slow), *shown]
        rows.append([*cells, f"{scenario['image_bytes'] / MEGA:.0f}"])
    restored = ["native", "criu", "criu, warmed up"]
    heads = [f"{moment}: {way}" for moment in ("first output", "exit") for way in ("conventional", *restored)]
    return Table(["ms, medians", *heads, "image, MB"], rows).without_gaps()


def starts(results: Results, moment: str) -> Table:
    """Return the table of all programs and all ways to start them, to FIRST or END."""
    scenarios = results.get("startup", "scenarios")
    ways = [name for name in WAYS if any(name in scenario["variants"] for scenario in scenarios.values())]

    def shown(name: str, way: str) -> str:
        if way in {BY_NATIVE, NATIVE_WARM} and is_refused(results, name):
            return NOT_ELIGIBLE
        return cell(scenarios[name]["variants"].get(way, {}).get(moment))

    rows = [[WAYS[way].label, *(shown(name, way) for name in scenarios)] for way in ways]
    skipped = results.files["startup"].get("skipped", []) if moment == END else ()
    return Table(["", *map(label, scenarios)], rows, skipped)


def dumps(results: Results) -> Table:
    """Return the table of the cost of snapshots."""
    rows = []
    for name, scenario in results.get("startup", "scenarios").items():
        taken = {way: scenario.get("dumps", {}).get(way, {}) for way in (BY_NATIVE, BY_CRIU, COPIED)}
        refused = {BY_NATIVE: NOT_ELIGIBLE} if is_refused(results, name) else {}
        cells = [
            f"{dump[key] / unit:.{digits}f}" if dump.get(key) is not None else refused.get(way, "")
            for key, unit, digits in (("seconds", 1, 1), ("frozen_seconds", 1, 2), ("image_bytes", MEGA, 0))
            for way, dump in taken.items()
            if (key, way) != ("frozen_seconds", BY_NATIVE)
        ]
        rows.append([label(name), *cells])
    heads = [f"`snapshot`, s: {way}" for way in ("native", "criu", "copied")]
    heads += [f"of that stopped, s: {way}" for way in ("criu", "copied")]
    heads += [f"files, MB: {way}" for way in ("native", "criu", "copied")]
    return Table(["", *heads], rows).without_gaps()


def dump(results: Results) -> Table:
    """Return the table of dumps by both engines."""
    rows = []
    for name, times in results.get("dump", "programs").items():
        cells = [cell(times["dump"].get(way)) for way in (NATIVE, CRIU, "write and fsync")]
        cells += [cell(times[kind].get(way)) for kind in ("standstill", "stopped") for way in (NATIVE, CRIU)]
        rows.append([label(name), *cells])
    heads = ["dump, ms: native", "criu", "as much written, with fsync", "longest pause of a thread, ms: native", "criu"]
    return Table(["", *heads, "threads stopped, ms: native", "criu"], rows, results.files["dump"].get("skipped", ()))


def native(results: Results) -> Table:
    """Return the table of page faults of native copies, and of 64 copies at once."""
    rows = []
    for name, found in results.get("native", "programs").items():
        together = found.get("at_once", {})
        counts = (f"{found[f'faults_{part}']['median']:.0f}" for part in ("program", "whole"))
        rows.append([label(name), *counts, *(cell(together.get(way, {}).get(FIRST)) for way in (NATIVE, CRIU))])
    heads = ["page faults: from the jump", "with the launcher's", "64 at once, all first outputs, ms: native", "criu"]
    return Table(["", *heads], rows, results.files["native"].get("skipped", ()))


def cold(results: Results) -> Table:
    """Return the table of first starts with a cold page cache."""
    measured = results.get("cold", "cold")
    ways = [way for way in WAYS if any(way in times for times in measured.values())]
    rows = [
        [f"{label(name)}: {WAYS[way].label}", cell(times[way][FIRST]), cell(times[way][END])]
        for name, times in measured.items()
        for way in ways
        if way in times
    ]
    return Table(["cold page cache", "first output, ms", "start to exit, ms"], rows, results.files["cold"]["skipped"])


def bar_table(results: Results) -> Table:
    """Return the table of bars."""
    rows = [[bar.name, bar.limit, bar.measured, bar.verdict] for bar in bars(results)]
    return Table(["bar", "at most", "measured", "met?"], rows)


def copies(results: Results) -> Table:
    """Return the table of copies that were started at once."""
    at_once, sizes = results.get("copies", "at_once"), results.get("copies", "bytes")
    counts = sorted({count for times in at_once.values() for count in times}, key=int)
    rows = []
    for name, times in at_once.items():
        cells = [
            f"{number(times[count][FIRST]['median'])} / {number(times[count][END]['median'])}" if count in times else ""
            for count in counts
        ]
        weights = [number(sizes[name][key] / MEGA) for key in ("alone", "one_of_many", "private")]
        rows.append([WAYS[name].label, *cells, *weights])
    heads = ["all first outputs / all ended, ms", *(f"{count} at once" for count in counts)]
    heads += ["MB: PSS of one alone", f"of one of {results.get('copies', 'weighed')}", "of that, its own"]
    return Table(heads, rows, results.get("copies", "skipped"))


def growth(results: Results) -> Table:
    """Return the table of the start as memory grows."""
    restored, rows = (COPIED, BY_CRIU, BY_NATIVE), []
    for size, values in results.get("growth", "sizes").items():
        firsts = [cell(values[FIRST].get(way)) for way in (CONVENTIONAL, *restored)]
        seconds = [f"{values['snapshot_seconds'].get(way, '')}" for way in restored]
        taken = values["image_bytes"]
        sizes = [f"{taken[way] / MEGA:.0f}" if way in taken else "" for way in restored]
        rows.append([size, *firsts, *seconds, *sizes])
    ways = ("copied", "mapped", "native")
    heads = ["array, MB", *(f"first output, ms: {way}" for way in ("conventional", *ways))]
    heads += [f"{what}: {way}" for what in ("snapshot, s", "images, MB") for way in ways]
    return Table(heads, rows, results.get("growth", "skipped")).without_gaps()


def touch(results: Results) -> Table:
    """Return the table of jobs that use a part of their memory."""
    jobs = results.get("touch", "jobs")
    ways = list(jobs[0]["ways"])
    rows = [
        [f"{job['kind']} {job['share']} %", *(cell(job["ways"].get(way, {}).get(END)) for way in ways)] for job in jobs
    ]
    return Table([f"{results.get('touch', 'megabytes')} MB, start to exit, ms", *ways], rows)


def standby(results: Results) -> Table:
    """Return the table of copies that wait."""
    measured = results.get("standby", "standby")
    ways = list(dict.fromkeys(way for values in measured.values() for way in values["first"]))
    rows = [
        [label(name), *(cell(values["first"].get(way)) for way in ways), f"{values['over_bare']:.2f}"]
        for name, values in measured.items()
    ]
    return Table(["first output, ms", *ways, "standby - `/bin/true`"], rows)


def pause(results: Results) -> Table:
    """Return the table of starts after a pause."""
    measured = results.get("pause", "pause")
    rows = [
        [f"{label(name)}: {way}", *map(cell, times.values())]
        for name, ways in measured.items()
        for way, times in ways.items()
    ]
    moments = next(iter(next(iter(measured.values())).values()))
    return Table(["first output, ms", *moments], rows)


def modes(results: Results) -> Table:
    """Return the table of the modes."""
    rows = [[name, cell(one["first"]), cell(one["end"])] for name, one in results.get("modes", "modes").items()]
    return Table(["program: launcher, mode", "first output, ms", "start to exit, ms"], rows)


def spawn(results: Results) -> Table:
    """Return the table of copies a second."""
    rows = [
        [f"{name}, by {way}", cell(rates["one_by_one"]), cell(rates["at_once"])]
        for name, ways in results.get("spawn", "copies_per_second").items()
        for way, rates in ways.items()
    ]
    return Table(["copies a second", "one by one", f"{results.get('spawn', 'together')} at once"], rows)


def workers(results: Results) -> Table:
    """Return the table of the first results of workers."""
    rows = [[kind, cell(ms)] for kind, ms in results.get("workers", "workers", "pandas").items()]
    return Table(["context of 4 workers, with pandas", "first results, ms"], rows)


TABLES: dict[str, tuple[str, Callable[[Results], Table]]] = {
    "first": ("startup", partial(starts, moment=FIRST)),
    "end": ("startup", partial(starts, moment=END)),
    "dumps": ("startup", dumps),
    "native": ("native", native),
    "dump": ("dump", dump),
    "cold": ("cold", cold),
    "growth": ("growth", growth),
    "copies": ("copies", copies),
    "touch": ("touch", touch),
    "standby": ("standby", standby),
    "pause": ("pause", pause),
    "modes": ("modes", modes),
    "spawn": ("spawn", spawn),
    "workers": ("workers", workers),
}
"""The tables of docs/benchmarks.md by the names of their marks, with the experiments."""


PARTS: dict[str, dict[str, Callable[[Results], object]]] = {
    "README.md": {"times": lambda results: f"{main_table(results)}\n{about(results, short=True)}"},
    "docs/benchmarks.md": {
        "machine": partial(about, short=False),
        "bars": bar_table,
        **{name: table for name, (_, table) in TABLES.items()},
    },
}
"""What is written between which marks of which file."""


def fill(text: str, name: str, content: str) -> str:
    """Return the text of a file with a part between its marks; raise ValueError where these are not there."""
    begin, end = (MARK.format(name=name, end=end) for end in ("begin", "end"))
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    filled, count = pattern.subn(lambda _: begin + content + end, text)
    if count != 1:
        raise ValueError(f"the marks {begin.strip()} and {end.strip()} are there {count} times, not once")
    return filled


def rewrite(results: Results, root: Path) -> int:
    """Rewrite the documents below a directory, but for parts without results; return 1 when one lacks marks."""
    for name, parts in PARTS.items():
        path = root / name
        text = path.read_text(encoding="utf-8")
        for part, write in parts.items():
            try:
                text = fill(text, part, str(write(results)))
            except Missing:
                print(f"{name}: {part} was not measured, and stays as it is", file=sys.stderr)
            except ValueError as error:
                print(f"{name}: {error}", file=sys.stderr)
                return 1
        path.write_text(text, encoding="utf-8")
    return 0
