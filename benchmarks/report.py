"""Show what was measured: a table, JSON and a plot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.common import Sample, Summary, ratio, summarize
from benchmarks.scenarios import LABELS
from benchmarks.variants import (
    CONVENTIONAL,
    COPIED,
    NATIVE,
    OURS,
    PYTHON,
    RAW,
    RAW_COPIED,
)

if TYPE_CHECKING:
    from benchmarks.snapshots import Snapshot

MEGA = 1_000_000


class Outcome(NamedTuple):
    """All that was measured of one scenario."""

    name: str
    samples: dict[str, list[Sample]]
    """The runs of each variant."""
    snapshot: Snapshot | None
    copied: Snapshot | None
    """Another whose memory is read by each copy, and never mapped."""

    def first(self, variant: str) -> Summary | None:
        """
        Return the times to the first output, None if there are none.

        Args:
            variant: The way to start.
        """
        runs = self.samples.get(variant)
        return summarize([run.first for run in runs]) if runs else None

    def end(self, variant: str) -> Summary | None:
        """
        Return the times to the end, None if there are none.

        Args:
            variant: The way to start.
        """
        runs = self.samples.get(variant)
        return summarize([run.end for run in runs]) if runs else None

    def speed_up(self, variant: str) -> tuple[float, float] | None:
        """
        Return how many times faster than conventional a variant is, to first output and to the end.

        Args:
            variant: The way to start.
        """
        slow = self.first(CONVENTIONAL), self.end(CONVENTIONAL)
        fast = self.first(variant), self.end(variant)
        if slow[0] is None or slow[1] is None or fast[0] is None or fast[1] is None:
            return None
        return ratio(slow[0], fast[0]), ratio(slow[1], fast[1])

    def launcher(self, variant: str) -> float | None:
        """
        Return the ms that one of our launchers needs more than criu alone, to first output.

        Args:
            variant: PYTHON, NATIVE or COPIED; the same snapshot is restored by both.
        """
        run, raw = self.first(variant), self.first(RAW_COPIED if variant == COPIED else RAW)
        return run.median - raw.median if run and raw else None


def cell(summary: Summary | None) -> str:
    """
    Write a median and the distance to the quartiles.

    Args:
        summary: Milliseconds, or None for what was not measured.
    """
    if summary is None:
        return "-"
    digits = 1 if summary.median < 100 else 0
    return f"{summary.median:.{digits}f} [dim]{summary.low:.{digits}f}..{summary.high:.{digits}f}[/dim]"


def table(outcomes: list[Outcome]) -> Table:
    """
    Make the table of the scenarios: a row for each way to start.

    Args:
        outcomes: What was measured.
    """
    result = Table(
        title="Start of a program, ms: median, quartiles",
        box=SIMPLE_HEAD,
        show_edge=False,  # with this and the padding it fits into 80 columns
        padding=(0, 1, 0, 0),
    )
    result.add_column("program / started by", no_wrap=True)
    for name in ("first output", "", "end", ""):
        width = None if name else len("10.0x")
        result.add_column(name, justify="right", no_wrap=True, min_width=width)
    for outcome in outcomes:
        for row in rows(outcome):
            result.add_row(*row)
        result.add_section()
    return result


def rows(outcome: Outcome) -> list[list[str]]:
    """
    Make a scenario's rows of the table.

    Args:
        outcome: What was measured.
    """
    head = [f"[bold]{LABELS.get(outcome.name, outcome.name)}[/bold]"]
    if outcome.snapshot is not None:
        head.append(f"[dim]image {outcome.snapshot.image_bytes / MEGA:.1f} MB[/dim]")
    made = [head]
    for name in outcome.samples:
        speed = outcome.speed_up(name) if name in OURS else None
        faster = [f"{x:.1f}x" for x in speed] if speed else ["", ""]
        first, end = cell(outcome.first(name)), cell(outcome.end(name))
        made.append([f" {name}", first, faster[0], end, faster[1]])
    for name in (PYTHON, NATIVE, COPIED):
        launcher = outcome.launcher(name)
        if launcher is not None:
            made.append([f" [dim]{name} - criu[/dim]", f"{launcher:.1f}"])
    return made


def launcher_table(parts: dict[str, list[Sample]]) -> Table:
    """
    Make the table of what the launcher in Python costs by itself.

    Args:
        parts: Runs of the bare interpreter, and with the launcher's imports.
    """
    result = Table(title="The launcher's own cost, ms: median, quartiles")
    result.add_column("what")
    result.add_column("start to end", justify="right")
    for name, runs in parts.items():
        result.add_row(name, cell(summarize([run.end for run in runs])))
    return result


def summary_json(summary: Summary | None) -> dict[str, float] | None:
    """
    Turn a summary into what JSON can hold, in ms rounded to microseconds.

    Args:
        summary: The summary, or None.
    """
    if summary is None:
        return None
    return {key: round(value, 3) for key, value in summary._asdict().items()}


def as_json(outcomes: list[Outcome], launcher: dict[str, list[Sample]]) -> dict[str, object]:
    """
    Turn everything into what JSON can hold, each single run included.

    Args:
        outcomes: The scenarios.
        launcher: The parts of the launcher's cost.
    """
    parts = {name: summary_json(summarize([run.end for run in runs])) for name, runs in launcher.items()}
    return {"scenarios": {outcome.name: scenario_json(outcome) for outcome in outcomes}, "launcher_end_ms": parts}


def scenario_json(outcome: Outcome) -> dict[str, Any]:
    """
    Turn a scenario into what JSON can hold.

    Args:
        outcome: What was measured.
    """
    snapshot = outcome.snapshot
    taken = {NATIVE: snapshot, COPIED: outcome.copied}
    return {
        "variants": {
            name: {
                "first_output_ms": summary_json(outcome.first(name)),
                "end_ms": summary_json(outcome.end(name)),
                "runs_ms": [[round(t, 3) for t in run] for run in runs],
            }
            for name, runs in outcome.samples.items()
        },
        "speed_up": {name: outcome.speed_up(name) for name in OURS},
        "launcher_ms": {name: outcome.launcher(name) for name in (PYTHON, NATIVE, COPIED)},
        "image_bytes": snapshot.image_bytes if snapshot else None,
        "mapped": snapshot is not None and snapshot.memory_key is not None,
        "dumps": {
            name: {
                "image_bytes": one.image_bytes,
                "seconds": round(one.seconds, 2),
                "frozen_seconds": round(one.frozen, 3),
            }
            for name, one in taken.items()
            if one is not None
        },
        "mode": snapshot.mode if snapshot else None,
    }
