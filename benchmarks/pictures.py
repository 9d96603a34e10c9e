"""Draw the results."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import FIRST
from benchmarks.scenarios import label
from benchmarks.ways import BY_CRIU, BY_NATIVE, CONVENTIONAL, COPIED, OURS, WAYS

LINES = {
    CONVENTIONAL: "conventional",
    COPIED: "restored by criu, memory copied",
    BY_CRIU: "restored by criu, memory mapped",
    BY_NATIVE: "restored by the native engine",
}
"""What the picture of growing memory shows."""


def errors(summaries: list[dict[str, float]]) -> list[list[float]]:
    """Return the distances of the quartiles from the medians, as matplotlib wants them."""
    return [[one["median"] - one["low"] for one in summaries], [one["high"] - one["median"] for one in summaries]]


def finish(figure: Figure, axes: Axes, title: str, written: dict[str, Any], path: Path) -> None:
    """Add a title with the machine, and write a picture as PNG and as SVG, the same bytes for the same picture."""
    machine = written["machine"]
    subtitle = (
        f"{machine['cores']} cores ({machine['processor']}), Linux {machine['kernel'].partition('-')[0]},"
        f" Python {machine['python']}, CRIU {machine['criu']}, {written['runs']} runs each"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}\n{subtitle}", fontsize=9, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def startup(written: dict[str, Any], path: Path) -> None:
    """Draw the times to the first output as bars, a group for each program."""
    scenarios = written["scenarios"]
    ways = [
        way for way, look in WAYS.items() if look.color and any(way in one["variants"] for one in scenarios.values())
    ]
    figure = Figure(figsize=(8, 1.8 + 0.15 * len(scenarios) * (len(ways) + 1)))
    axes = figure.add_subplot()
    height = 1 / (len(ways) + 1)
    for place, way in enumerate(ways):
        draw_bars(axes, scenarios, way, (place - (len(ways) - 1) / 2) * height, height)
    axes.set_yticks(range(len(scenarios)), [label(name).replace("+", "\n+ ") for name in scenarios])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("time to first output, ms (log scale; median, quartiles)")
    variants = [one["variants"] for one in scenarios.values()]
    least = min(found[way][FIRST]["median"] for found in variants for way in ways if way in found)
    # A power of ten, and room for the numbers at the bars' ends.
    axes.set_xlim(10 ** math.floor(math.log10(least)), axes.get_xlim()[1] * 2.2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.margins(y=0.01)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    # Below the axes: bars of all lengths leave no corner free.
    below = (0.5, -0.5 / figure.get_figheight())
    axes.legend(loc="upper center", bbox_to_anchor=below, ncols=4, frameon=False, fontsize=8)
    finish(figure, axes, "Start of a Python program", written, path)


def draw_bars(axes: Axes, scenarios: dict[str, Any], way: str, offset: float, height: float) -> None:
    """Draw the bars of one way to start, one for each program, so far from the middle of the program's place."""
    shown = [
        (row + offset, one["variants"][way][FIRST], one["speed_up"].get(way) if way in OURS else None)
        for row, one in enumerate(scenarios.values())
        if way in one["variants"]
    ]
    axes.barh(
        [place for place, _, _ in shown],
        [first["median"] for _, first, _ in shown],
        height=height * 0.92,
        xerr=errors([first for _, first, _ in shown]),
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        color=WAYS[way].color,
        label=WAYS[way].label.replace("`", ""),
    )
    for place, first, speed in shown:
        text = f"{first['median']:.0f}" + (f"  ({speed[0]:.1f}x)" if speed else "")
        weight = "bold" if speed else "normal"
        axes.text(first["high"] * 1.06, place, text, va="center", fontsize=7, fontweight=weight)


def growth(written: dict[str, Any], path: Path) -> None:
    """Draw the times to the first output by the size of memory: a line for each way, both axes logarithmic."""
    figure = Figure(figsize=(8, 4))
    axes = figure.add_subplot()
    sizes = {int(size): values[FIRST] for size, values in written["sizes"].items()}
    for way, text in LINES.items():
        points = {size: firsts[way] for size, firsts in sizes.items() if way in firsts}
        axes.errorbar(
            list(points),
            [point["median"] for point in points.values()],
            yerr=errors(list(points.values())),
            label=text,
            color=WAYS[way].color,
            marker="o",
            capsize=3,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(sizes), [str(size) for size in sizes])
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlabel("memory of the array, MB")
    axes.set_ylabel("time to first output, ms")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    finish(figure, axes, "Start of a program, by its memory (median, quartiles)", written, path)
