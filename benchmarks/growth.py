"""
See what memory costs: the start of a program with an array of numpy that takes 8 MB to 4 GB.

Conventional, restored with the memory read, and restored with the memory mapped; also how long the dump takes, and how
large the images are. Each size has its snapshots removed before the next is measured.

Run it as ``python benchmarks/growth.py`` in an environment where the package is installed with its extra ``bench``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # started by its path
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.table import Table

from benchmarks import frame, variants
from benchmarks.common import summarize
from benchmarks.pictures import save, subtitle
from benchmarks.report import summary_json
from benchmarks.scenarios import numpy
from benchmarks.session import Session

if TYPE_CHECKING:
    from benchmarks.budget import Budget

SIZES = (8, 32, 128, 512, 1024, 2048, 4096)  # MB
SHOWN = {
    variants.CONVENTIONAL: ("conventional", "#9aa3ad"),
    variants.COPIED: ("restored, memory copied", "#4c8f6b"),
    variants.NATIVE: ("restored, memory mapped", "#1f6fb2"),
}
FREE = 3  # times the array: the snapshots, and what the dump needs meanwhile
MEGA = 1_000_000
MEGABYTE = 1 << 20


class Options(frame.Options):
    """The command line."""

    sizes: list[int]
    plot: Path | None


def measure_size(session: Session, megabytes: int, budget: Budget) -> dict[str, Any] | None:
    """
    Measure the program with an array of one size.

    Args:
        session: Measures, and says what is left out.
        megabytes: The size.
        budget: Of the rounds.

    Returns:
        Summaries by way, and what the snapshots took, as JSON holds them; None if it does not fit.
    """
    if budget.exhausted:
        session.skip(f"{megabytes} MB: no time was left")
        return None
    free = shutil.disk_usage(session.directory).free
    if free < FREE * megabytes * MEGABYTE:
        session.skip(f"{megabytes} MB: {free / MEGA:.0f} MB are free in {session.directory}, too few for the snapshots")
        return None
    scenario = numpy(megabytes)
    snapshots = {
        variants.NATIVE: session.snapshot(scenario, "map"),
        variants.COPIED: session.snapshot(scenario, "copy"),
    }
    there = {name: snapshot for name, snapshot in snapshots.items() if snapshot is not None}
    ways = [variants.conventional(scenario)]
    ways += [variants.restored(name, scenario, snapshot) for name, snapshot in there.items()]
    samples = session.rounds(f"{megabytes} MB", ways, budget)
    for snapshot in there.values():
        shutil.rmtree(snapshot.directory)
    return {
        "first_output_ms": {
            name: summary_json(summarize([run.first for run in runs])) for name, runs in samples.items()
        },
        "end_ms": {name: summary_json(summarize([run.end for run in runs])) for name, runs in samples.items()},
        "snapshot_seconds": {name: round(snapshot.seconds, 2) for name, snapshot in there.items()},
        "frozen_seconds": {name: round(snapshot.frozen, 3) for name, snapshot in there.items()},
        "image_bytes": {name: snapshot.image_bytes for name, snapshot in there.items()},
    }


def table(sizes: dict[int, dict[str, Any]]) -> Table:
    """
    Make the table: a row for each size.

    Args:
        sizes: What `measure_size` returned for each.
    """
    result = Table(title="An array of numpy, by its size: first output, ms (medians); snapshot, s; images, MB")
    result.add_column("MB", justify="right")
    for label, _ in SHOWN.values():
        result.add_column(label, justify="right")
    result.add_column("snapshot copied / mapped", justify="right")
    result.add_column("images", justify="right")
    for megabytes, values in sizes.items():
        firsts = values["first_output_ms"]
        cells = [f"{firsts[name]['median']:.1f}" if name in firsts else "-" for name in SHOWN]
        seconds = " / ".join(
            str(values["snapshot_seconds"].get(name, "-")) for name in (variants.COPIED, variants.NATIVE)
        )
        image = values["image_bytes"].get(variants.NATIVE, 0) / MEGA
        result.add_row(str(megabytes), *cells, seconds, f"{image:.0f}")
    return result


def plot(sizes: dict[int, dict[str, Any]], path: Path, subtitle: str) -> None:
    """
    Draw a line for each way, both axes logarithmic.

    Args:
        sizes: What `measure_size` returned for each.
        path: The PNG file; an SVG file is written beside it.
        subtitle: Machine and versions in a line.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4))
    axes = figure.add_subplot()
    for name, (label, color) in SHOWN.items():
        points = [(size, values["first_output_ms"].get(name)) for size, values in sizes.items()]
        known = [(size, point) for size, point in points if point is not None]
        axes.errorbar(
            [size for size, _ in known],
            [point["median"] for _, point in known],
            yerr=[
                [point["median"] - point["low"] for _, point in known],
                [point["high"] - point["median"] for _, point in known],
            ],
            label=label,
            color=color,
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
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title(f"Start of a program, by its memory (median, quartiles)\n{subtitle}", fontsize=9, loc="left")
    figure.tight_layout()
    save(figure, path)


def parse(argv: list[str] | None) -> Options:
    """
    Read the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.
    """
    parser = frame.Parser("growth.py", "See what memory costs at the start.", runs=5)
    parser.add_counts("--sizes", SIZES, "sizes of the array, MB")
    parser.add_plot()
    return parser.read(argv, Options())


def main(argv: list[str] | None = None) -> int:
    """
    Measure, print the table and write the files that were asked for.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` by default.

    Returns:
        0, or 1 when nothing could be measured.
    """
    options = parse(argv)
    bench = frame.Frame(options)
    if not bench.has(numpy()):
        return 1
    sizes = {}
    with bench.directory() as directory:
        session = Session(bench, directory)
        for place, size in enumerate(options.sizes):
            values = measure_size(session, size, bench.budget.part(len(options.sizes) - place))
            if values is not None:
                sizes[size] = values
    if not sizes:
        return 1
    bench.console.print(table(sizes))
    bench.write(sizes=sizes)
    if options.plot is not None:
        plot(sizes, options.plot, subtitle(bench.machine, bench.runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
