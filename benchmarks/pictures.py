"""Draw what was measured."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.scenarios import LABELS
from benchmarks.variants import (
    CONVENTIONAL,
    COPIED,
    DMTCP,
    FORK,
    FORKSERVER,
    NATIVE,
    OURS,
    PYCRIU,
    PYTHON,
    RAW,
    WARM,
)

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchmarks.report import Outcome

COLORS = {
    CONVENTIONAL: "#9aa3ad",
    PYTHON: "#7db3dd",
    NATIVE: "#1f6fb2",
    WARM: "#134a78",
    COPIED: "#4c8f6b",
    RAW: "#e0a030",
    PYCRIU: "#b65d4e",
    DMTCP: "#8b6bb0",
    FORKSERVER: "#c9b458",
    FORK: "#6e7a52",
}
"""The ways to start that the plot shows."""


def subtitle(described: dict[str, object], runs: str) -> str:
    """
    Describe the measurement in a line for the plot.

    Args:
        described: What ``machine.describe`` returned.
        runs: How many rounds were counted.
    """
    return (
        f"{described['cores']} cores ({described['processor']}),"
        f" Linux {str(described['kernel']).partition('-')[0]},"
        f" Python {described['python']}, CRIU {described['criu']}, {runs} runs each"
    )


def plot(outcomes: list[Outcome], path: Path, subtitle: str) -> None:
    """
    Draw the times to the first output as bars.

    Args:
        outcomes: The scenarios.
        path: The PNG file to write; an SVG file is written beside it.
        subtitle: Machine and versions in a line.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    names = [name for name in COLORS if any(o.samples.get(name) for o in outcomes)]
    figure = Figure(figsize=(8, 1.8 + 0.15 * len(outcomes) * (len(names) + 1)))
    axes = figure.add_subplot()
    height = 1 / (len(names) + 1)
    for place, name in enumerate(names):
        offset = (place - (len(names) - 1) / 2) * height
        draw_bars(axes, outcomes, name, offset, height)
    axes.set_yticks(
        range(len(outcomes)),
        [LABELS.get(o.name, o.name).replace("+", "\n+ ") for o in outcomes],
    )
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("time to first output, ms (log scale; median, quartiles)")
    firsts = [outcome.first(name) for outcome in outcomes for name in names]
    least = min(first.median for first in firsts if first is not None)
    # A power of ten, and room for the numbers at the bars' ends.
    axes.set_xlim(10 ** math.floor(math.log10(least)), axes.get_xlim()[1] * 2.2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.margins(y=0.01)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    # Below the axes: bars of all lengths leave no corner free.
    below = (0.5, -0.5 / figure.get_figheight())
    axes.legend(loc="upper center", bbox_to_anchor=below, ncols=4, frameon=False, fontsize=8)
    axes.set_title(f"Start of a Python program\n{subtitle}", fontsize=9, loc="left")
    figure.tight_layout()
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """
    Write a picture as PNG and as SVG, the same bytes for the same picture.

    Args:
        figure: The picture.
        path: The PNG file; the other has the same name.
    """
    from matplotlib import rc_context

    figure.savefig(path, dpi=100)
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def draw_bars(axes: Axes, outcomes: list[Outcome], name: str, offset: float, height: float) -> None:
    """
    Draw the bars of one variant, one for each scenario.

    Args:
        axes: Where to draw.
        outcomes: The scenarios.
        name: The variant.
        offset: Distance of its bars from the middle of the scenario's place.
        height: Thickness of a bar.
    """
    shown = [(row, o, o.first(name)) for row, o in enumerate(outcomes)]
    bars = [(row, o, first) for row, o, first in shown if first is not None]
    axes.barh(
        [row + offset for row, _, _ in bars],
        [first.median for _, _, first in bars],
        height=height * 0.92,
        xerr=[
            [first.median - first.low for _, _, first in bars],
            [first.high - first.median for _, _, first in bars],
        ],
        error_kw={"elinewidth": 0.8, "ecolor": "#333333"},
        color=COLORS[name],
        label=name,
    )
    for row, outcome, first in bars:
        speed = outcome.speed_up(name) if name in OURS else None
        text = f"{first.median:.0f}" + (f"  ({speed[0]:.1f}x)" if speed else "")
        axes.text(
            first.high * 1.06,
            row + offset,
            text,
            va="center",
            fontsize=7,
            fontweight="bold" if speed else "normal",
        )
