"""The benchmarks' statistics, order of runs and stop-watch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.bench import round_robin
from benchmarks.measure import RunError, Sample, Summary, measure, ratio, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence


def summary_of(median: float) -> Summary:
    """Make a summary of which only the median matters."""
    return Summary(median, median, median, median, median, 1)


@pytest.mark.parametrize(
    ("samples", "median", "low", "high"),
    [
        ([5.0], 5.0, 5.0, 5.0),
        ([1.0, 3.0], 2.0, 1.5, 2.5),
        ([4.0, 1.0, 3.0, 2.0, 5.0], 3.0, 2.0, 4.0),
        ([1.0, 2.0, 3.0, 4.0], 2.5, 1.75, 3.25),
    ],
)
def test_summary_holds_median_and_quartiles(samples: Sequence[float], median: float, low: float, high: float) -> None:
    """The quartiles are those of the inclusive method, whatever the order."""
    summary = summarize(samples)
    assert summary[:3] == (median, low, high)
    assert summary.spread == high - low


def test_summary_holds_extremes_and_count() -> None:
    """Outliers are kept, but do not move the median."""
    summary = summarize([10.0, 11.0, 9.0, 10.0, 500.0])
    assert summary.median == 10.0
    assert (summary.least, summary.greatest, summary.runs) == (9.0, 500.0, 5)


def test_summary_of_nothing_is_refused() -> None:
    """No samples have no median, and 0 would look like one."""
    with pytest.raises(ValueError, match="no samples"):
        summarize([])


def test_ratio_compares_medians() -> None:
    """A quarter of the time is four times faster."""
    assert ratio(summary_of(100.0), summary_of(25.0)) == 4.0


def test_ratio_to_zero_is_refused() -> None:
    """Nothing takes no time: such a median is a measuring error."""
    with pytest.raises(ValueError, match="no ratio"):
        ratio(summary_of(1.0), summary_of(0.0))


def test_rounds_hold_each_item_once_and_rotate() -> None:
    """Every round begins with another item."""
    order = [name for _, name in round_robin("abc", 3)]
    assert order == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_first_output_comes_before_the_end() -> None:
    """A program that waits between its output and its end shows both times."""
    code = "import os; os.write(1, b'ready'); os.execv('/bin/sleep', ['sleep', '0.1'])"
    sample = measure([sys.executable, "-c", code], expect="ready")
    assert isinstance(sample, Sample)
    assert 0 < sample.first < sample.end
    assert sample.end >= 100


def test_copied_fds_refer_to_the_programs_own() -> None:
    """A pair from fd 1 gives the program its standard output a second time."""
    code = "import os; os.write(90, b'ready')"
    measure([sys.executable, "-c", code], copies=[(1, 90)], expect="ready")


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; print('ready'); sys.exit('broken')", "broken"),
        ("print('other')", "other"),
        ("", "status 0, output b''"),
    ],
)
def test_failed_program_is_no_measurement(code: str, says: str) -> None:
    """A wrong status, a wrong output and no output are errors that say so."""
    with pytest.raises(RunError, match=says):
        measure([sys.executable, "-c", code], expect="ready")


def test_measuring_leaves_no_fds_behind() -> None:
    """Hundreds of runs must fit into one process."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    measure([sys.executable, "-c", "print('ready')"], expect="ready")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
