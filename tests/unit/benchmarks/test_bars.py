"""What the benchmarks have written is held against the bars, and put into documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import BARS, Results, bars
from benchmarks.experiments.pause import MOMENTS
from benchmarks.report import PARTS, fill, pause
from benchmarks.ways import ARITHMETIC, BARE, CONVENTIONAL, NATIVE, RAW, WARM

ROOT = Path(__file__).resolve().parents[3]


def results(directory: Path, empty_end: float, torch_first: float) -> Results:
    """Write results of which little was measured, and read them."""
    startup: dict[str, Any] = {
        "scenarios": {
            "empty": {"variants": {BARE: moments(10.0), NATIVE: moments(empty_end)}},
            "torch": {
                "variants": {
                    CONVENTIONAL: moments(1200.0),
                    NATIVE: moments(30.0),
                    WARM: moments(torch_first),
                }
            },
        }
    }
    (directory / "startup.json").write_text(json.dumps(startup), encoding="utf-8")
    return Results.read(directory)


def moments(median: float) -> dict[str, dict[str, float]]:
    """Return a first output and an end."""
    return {"first_output_ms": {"median": median}, "end_ms": {"median": median}}


@pytest.mark.parametrize(("empty_end", "torch_first", "met"), [(10.0, 20.0, True), (10.1, 20.1, False)])
def test_a_bar_is_met_up_to_its_limit(tmp_path: Path, empty_end: float, torch_first: float, *, met: bool) -> None:
    """The limit itself is good enough, and a tenth of a millisecond more is not."""
    verdicts = {bar.name: bar.met for bar in bars(results(tmp_path, empty_end, torch_first))}
    assert verdicts[f"empty program, launch to exit, against `{BARE}`"] is met
    assert verdicts["torch, warmed up, first output"] is met
    assert verdicts["torch, imports done, first output"] is False


@pytest.mark.parametrize("bounded", [False, True])
def test_what_processors_allow_is_told_where_it_was_measured(tmp_path: Path, *, bounded: bool) -> None:
    """Copies at once are held against their bar, and beside that stands what programs take that only compute."""
    at_once = {NATIVE: {"1": moments(25.0), "8": moments(150.0)}}
    if bounded:
        at_once[ARITHMETIC] = {"1": moments(30.0), "8": moments(126.0)}
    (tmp_path / "copies.json").write_text(json.dumps({"at_once": at_once}), encoding="utf-8")
    (bar,) = [bar for bar in bars(Results.read(tmp_path)) if bar.met is not None]
    assert bar.met is False
    assert bar.measured == ("6 times (4.2 for arithmetic alone)" if bounded else "6 times")


def test_what_was_not_measured_is_neither_met_nor_missed(tmp_path: Path) -> None:
    """Every bar is in the table, whatever was measured."""
    every = list(bars(Results.read(tmp_path)))
    assert [bar.name for bar in every] == list(BARS)
    assert {bar.verdict for bar in every} == {"not measured"}


def test_a_part_takes_the_place_of_the_one_before() -> None:
    """What stands around the marks stays, and nothing in the new text is taken for a pattern."""
    text = "before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n"
    filled = fill(text, "x", "new \\1\n")
    assert filled == "before\n<!-- x: begin -->\nnew \\1\n<!-- x: end -->\nafter\n"
    with pytest.raises(ValueError, match="0 times"):
        fill(text, "y", "new\n")


@pytest.mark.parametrize(("name", "part"), [(name, part) for name, parts in PARTS.items() for part in parts])
def test_documents_have_the_marks(name: str, part: str) -> None:
    """Each part that is written has a place."""
    fill((ROOT / name).read_text(encoding="utf-8"), part, "")


def test_starts_after_a_pause_have_a_row_for_each_way(tmp_path: Path) -> None:
    """The launcher's and criu's, with both moments."""
    times = {"median": 12.34, "low": 11.0, "high": 13.0}
    ways = {way: dict.fromkeys(MOMENTS, times) for way in (NATIVE, RAW)}
    (tmp_path / "pause.json").write_text(json.dumps({"pause": {"empty": ways}}), encoding="utf-8")
    lines = str(pause(Results.read(tmp_path))).splitlines()
    assert lines[0] == "| first output, ms | after a pause | right after another |"
    assert lines[2:] == [f"| empty: {way} | 12.3 (11.0 to 13.0) | 12.3 (11.0 to 13.0) |" for way in (NATIVE, RAW)]
