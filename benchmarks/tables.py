"""Write what was measured as tables of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.bars import BAR_WORDS, Results, bars
from benchmarks.scenarios import LABELS
from benchmarks.variants import (
    ARITHMETIC,
    BARE,
    BRIEF,
    CONVENTIONAL,
    COPIED,
    FORK,
    FORKSERVER,
    NATIVE,
    ORDER,
    PYTHON,
    RAW,
    RAW_COPIED,
    WARM,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

WAYS = {
    NATIVE: "restored",
    WARM: "restored, warmed up",
    BRIEF: "restored, OpenMP spins briefly",
    COPIED: "restored, copied",
    RAW: "`criu restore`",
    RAW_COPIED: "`criu restore`, copied",
    PYTHON: "launcher in Python",
    FORKSERVER: "forkserver",
    FORK: "`os.fork`",
    ARITHMETIC: "arithmetic in one thread",
    BARE: f"`{BARE}`",
}
"""How the ways to start are called in tables, where not by their names."""
MEGA = 1_000_000


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    Write a table, its first column to the left and the others to the right.

    Args:
        heads: The columns' names.
        rows: The cells.
    """
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def number(value: float) -> str:
    """
    Write milliseconds, or any number that is to be read at a glance.

    Args:
        value: The number.
    """
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def cell(summary: dict[str, float] | None) -> str:
    """
    Write a median, and the quartiles.

    Args:
        summary: What JSON holds of a `Summary`; None for what was not measured.
    """
    if summary is None:
        return ""
    return f"{number(summary['median'])} ({number(summary['low'])} to {number(summary['high'])})"


def machine(about: dict[str, Any]) -> str:
    """
    Describe the machine in a sentence.

    Args:
        about: What `benchmarks.machine.describe` has returned.
    """
    virtual = ", a virtual machine" if about["hypervisor"] else ""
    kind = f" ({about['criu_kind']})" if about.get("criu_kind") else ""
    return (
        f"{about['cores']} cores of {about['processor']}{virtual}, {about['memory_bytes'] / 1e9:.0f} GB of memory, "
        f"{about['system']}, kernel {about['kernel'].partition('-')[0]}, Python {about['python']}, "
        f"criu {about['criu']}{kind}, load {about['load'][0]:.1f}"
    )


def main_table(results: Results) -> str:
    """
    Write the table of the README: conventional and restored starts.

    Args:
        results: What was measured.
    """
    rows = []
    for name, scenario in results.get("startup", "scenarios").items():
        ways = scenario["variants"]
        if ways.get(NATIVE) is None:
            continue
        cells = [LABELS.get(name, name)]
        for moment in ("first_output_ms", "end_ms"):
            slow = ways[CONVENTIONAL][moment]["median"]
            cells += [number(slow), *(_times(slow, ways.get(way), moment) for way in (NATIVE, WARM))]
        rows.append([*cells, f"{scenario['image_bytes'] / MEGA:.0f}"])
    heads = ["first output: conventional", "restored", "warmed up", "exit: conventional", "restored", "warmed up"]
    return markdown(["ms, medians", *heads, "image, MB"], rows)


def _times(slow: float, way: dict[str, Any] | None, moment: str) -> str:
    """Write a median, and how many times as fast as a conventional start that is."""
    if way is None:
        return ""
    fast = way[moment]["median"]
    return f"{number(fast)} (**{slow / fast:.3g}** times)"


def starts(results: Results, moment: str) -> str:
    """
    Write a table of all programs and all ways to start them.

    Args:
        results: What was measured.
        moment: ``first_output_ms`` or ``end_ms``.
    """
    scenarios = results.get("startup", "scenarios")
    ways = [name for name in ORDER if any(name in scenario["variants"] for scenario in scenarios.values())]
    heads = ["", *(LABELS.get(name, name) for name in scenarios)]
    rows = [
        [WAYS.get(way, way), *(cell(scenario["variants"].get(way, {}).get(moment)) for scenario in scenarios.values())]
        for way in ways
    ]
    return markdown(heads, rows)


def dumps(results: Results) -> str:
    """
    Write the table of what snapshots take.

    Args:
        results: What was measured.
    """
    rows = []
    for name, scenario in results.get("startup", "scenarios").items():
        taken = [scenario.get("dumps", {}).get(way, {}) for way in (NATIVE, COPIED)]
        cells = [
            f"{dump[key] / unit:.{digits}f}" if key in dump else ""
            for key, unit, digits in (("seconds", 1, 1), ("frozen_seconds", 1, 2), ("image_bytes", MEGA, 0))
            for dump in taken
        ]
        rows.append([LABELS.get(name, name), *cells])
    heads = ["", "`snapshot`, s: auto", "copied", "of that stopped, s: auto", "copied", "files, MB: auto", "copied"]
    return markdown(heads, rows)


def bar_table(results: Results) -> str:
    """
    Write the table of bars.

    Args:
        results: What was measured.
    """
    return markdown(BAR_WORDS, [[bar.name, bar.limit, bar.measured, bar.verdict] for bar in bars(results)])


def copies(results: Results) -> str:
    """
    Write the table of copies that were started at once.

    Args:
        results: What was measured.
    """
    at_once, sizes = results.get("copies", "at_once"), results.get("copies", "bytes")
    counts = sorted({count for times in at_once.values() for count in times}, key=int)
    rows = []
    for name, times in at_once.items():
        cells = [
            f"{number(times[count]['first_output_ms']['median'])} / {number(times[count]['end_ms']['median'])}"
            if count in times
            else ""
            for count in counts
        ]
        weights = [number(sizes[name][key] / MEGA) for key in ("alone", "one_of_many", "private")]
        rows.append([WAYS.get(name, name), *cells, *weights])
    heads = ["all first outputs / all ended, ms", *(f"{count} at once" for count in counts)]
    heads += ["MB: PSS of one alone", f"of one of {results.get('copies', 'weighed')}", "of that, its own"]
    return markdown(heads, rows) + skipped(results.get("copies", "skipped"))


def growth(results: Results) -> str:
    """
    Write the table of the start as memory grows.

    Args:
        results: What was measured.
    """
    rows = []
    for size, values in results.get("growth", "sizes").items():
        firsts = [cell(values["first_output_ms"].get(way)) for way in (CONVENTIONAL, COPIED, NATIVE)]
        seconds = [f"{values['snapshot_seconds'].get(way, '')}" for way in (COPIED, NATIVE)]
        sizes = [f"{values['image_bytes'].get(way, 0) / MEGA:.0f}" for way in (COPIED, NATIVE)]
        rows.append([size, *firsts, *seconds, *sizes])
    heads = ["array, MB", "first output, ms: conventional", "copied", "mapped"]
    heads += ["snapshot, s: copied", "mapped", "images, MB: copied", "mapped"]
    return markdown(heads, rows) + skipped(results.get("growth", "skipped"))


def touch(results: Results) -> str:
    """
    Write the table of jobs that use a part of their memory.

    Args:
        results: What was measured.
    """
    jobs = results.get("touch", "jobs")
    ways = list(jobs[0]["ways"])
    rows = [
        [f"{job['kind']} {job['share']} %", *(cell(job["ways"].get(way, {}).get("end_ms")) for way in ways)]
        for job in jobs
    ]
    return markdown([f"{results.get('touch', 'megabytes')} MB, start to exit, ms", *ways], rows)


def standby(results: Results) -> str:
    """
    Write the table of copies that wait.

    Args:
        results: What was measured.
    """
    measured = results.get("standby", "standby")
    ways = list(next(iter(measured.values()))["first"])
    rows = [
        [LABELS.get(name, name), *(cell(values["first"].get(way)) for way in ways), f"{values['over_bare']:.2f}"]
        for name, values in measured.items()
    ]
    return markdown(["first output, ms", *ways, "standby - `/bin/true`"], rows)


def pause(results: Results) -> str:
    """
    Write the table of starts after a pause.

    Args:
        results: What was measured.
    """
    measured = results.get("pause", "pause")
    rows = [
        [f"{LABELS.get(name, name)}: {way}", *(cell(time) for time in times.values())]
        for name, ways in measured.items()
        for way, times in ways.items()
    ]
    moments = next(iter(next(iter(measured.values())).values()))
    return markdown(["first output, ms", *moments], rows)


def modes(results: Results) -> str:
    """
    Write the table of the modes.

    Args:
        results: What was measured.
    """
    measured = results.get("modes", "modes")
    rows = [[name, cell(values["first"]), cell(values["end"])] for name, values in measured.items()]
    return markdown(["program: launcher, mode", "first output, ms", "start to exit, ms"], rows)


def spawn(results: Results) -> str:
    """
    Write the table of copies a second.

    Args:
        results: What was measured.
    """
    rows = [
        [f"{name}, by {way}", cell(rates["one_by_one"]), cell(rates["at_once"])]
        for name, ways in results.get("spawn", "copies_per_second").items()
        for way, rates in ways.items()
    ]
    return markdown(["copies a second", "one by one", f"{results.get('spawn', 'together')} at once"], rows)


def skipped(sentences: Sequence[str]) -> str:
    """
    Say what was left out.

    Args:
        sentences: What, and why.
    """
    return "".join(f"\nNot measured: {sentence}.\n" for sentence in sentences)
