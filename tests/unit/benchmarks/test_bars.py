"""What the benchmarks have written is held against the bars, and put into documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import BARS, Results, bars
from benchmarks.experiments.pause import MOMENTS
from benchmarks.report import NOT_ELIGIBLE, PARTS, dump, fill, main_table, native, pause, starts
from benchmarks.snapshots import CRIU, NATIVE
from benchmarks.ways import ARITHMETIC, BARE, BY_CRIU, BY_NATIVE, CONVENTIONAL, RAW, TRUE, WARM, WAYS

ROOT = Path(__file__).resolve().parents[3]


def results(directory: Path, empty_end: float, torch_first: float) -> Results:
    """Write results of which little was measured, and read them."""
    startup: dict[str, Any] = {
        "scenarios": {
            "empty": {"variants": {BARE: moments(10.0), BY_CRIU: moments(empty_end)}},
            "torch": {
                "variants": {
                    CONVENTIONAL: moments(1200.0),
                    BY_CRIU: moments(30.0),
                    WARM: moments(torch_first),
                }
            },
        }
    }
    (directory / "startup.json").write_text(json.dumps(startup), encoding="utf-8")
    return Results.read(directory)


def moments(ms: float) -> dict[str, dict[str, float]]:
    """Return a first output and an end."""
    return {"first_output_ms": median(ms), "end_ms": median(ms)}


def median(ms: float) -> dict[str, float]:
    """Return what was measured, all alike."""
    return {"median": ms, "low": ms, "high": ms}


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
    at_once = {BY_CRIU: {"1": moments(25.0), "8": moments(150.0)}}
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
    ways = {way: dict.fromkeys(MOMENTS, times) for way in (BY_CRIU, RAW)}
    (tmp_path / "pause.json").write_text(json.dumps({"pause": {"empty": ways}}), encoding="utf-8")
    lines = str(pause(Results.read(tmp_path))).splitlines()
    assert lines[0] == "| first output, ms | after a pause | right after another |"
    assert lines[2:] == [f"| empty: {way} | 12.3 (11.0 to 13.0) | 12.3 (11.0 to 13.0) |" for way in (BY_CRIU, RAW)]


def test_cells_of_the_native_engine_say_where_it_refuses_a_program() -> None:
    """What was not measured otherwise is empty, and has no column where that is so for all programs."""
    slow = {CONVENTIONAL: moments(100.0), BY_CRIU: moments(10.0)}
    scenarios = {"empty": {"variants": slow, "image_bytes": 1}, "torch": {"variants": slow, "image_bytes": 1}}
    startup: dict[str, Any] = {"scenarios": scenarios}
    before = main_table(Results({"startup": startup}))
    assert not any("native" in head for head in before.heads)
    scenarios["empty"]["variants"] = {**slow, BY_NATIVE: moments(4.0)}
    startup["not_eligible"] = {"torch": "has a child process (sh, pid 7)"}
    results = Results({"startup": startup})
    table = main_table(results)
    place = table.heads.index("first output: native")
    assert [row[place] for row in table.rows] == ["4.0 (**25** times)", NOT_ELIGIBLE]
    (row,) = [row for row in starts(results, "first_output_ms").rows if row[0] == WAYS[BY_NATIVE].label]
    assert (row[1][:4], row[2]) == ("4.0 ", NOT_ELIGIBLE)


def test_native_copies_are_held_against_criu(tmp_path: Path) -> None:
    """The limits themselves are good enough."""
    empty = {BY_NATIVE: moments(3.5), BY_CRIU: moments(10.0), TRUE: moments(1.0), BARE: moments(11.7)}
    (tmp_path / "startup.json").write_text(json.dumps({"scenarios": {"empty": {"variants": empty}}}), encoding="utf-8")
    at_once = {NATIVE: moments(270.0), CRIU: moments(500.0)}
    counted = {"faults_program": {"median": 420}, "faults_whole": {"median": 500}, "at_once": at_once}
    faults = {"machine": {"python": "3.11.7"}, "programs": {"empty": counted}}
    (tmp_path / "native.json").write_text(json.dumps(faults), encoding="utf-8")
    results = Results.read(tmp_path)
    verdicts = {bar.name.partition(": ")[2]: bar.met for bar in bars(results) if bar.name.startswith("native: ")}
    assert verdicts["empty program, first output, over criu's"] is True
    assert verdicts[f"empty program, launch to exit, over `{BARE}`"] is True
    assert verdicts["empty program, first output, over fork, exec and exit of `/bin/true`"] is False
    assert verdicts["empty program, page faults from the jump to the exit"] is True
    assert verdicts["64 empty copies at once, all first outputs, over criu's"] is False
    assert verdicts["pandas, page faults from the jump to the exit, Python 3.12 or newer"] is None
    assert native(results).rows == [["empty", "420", "500", "270 (270 to 270)", "500 (500 to 500)"]]


@pytest.mark.parametrize(
    ("native_ms", "criu_ms", "met"), [(15.0, 300.0, True), (15.0, 299.0, False), (16, 1000, False)]
)
def test_a_standstill_is_short_and_much_shorter_than_by_criu(
    tmp_path: Path, native_ms: float, criu_ms: float, *, met: bool
) -> None:
    """Both limits hold, and dumps are compared with criu's, or with writing as much."""
    stand = {NATIVE: median(native_ms), CRIU: median(criu_ms)}
    took = {NATIVE: median(150), CRIU: median(400), "write and fsync": median(100)}
    programs = {"numpy": {"standstill": stand, "stopped": {}, "dump": took}, "pandas": {"dump": took}}
    (tmp_path / "dump.json").write_text(json.dumps({"programs": programs}), encoding="utf-8")
    results = Results.read(tmp_path)
    verdicts = {bar.name: bar.met for bar in bars(results) if bar.met is not None}
    assert verdicts == {
        "native: 1 GB of numpy, standstill of a dump": met,
        "native: 1 GB of numpy, dump, over writing as much with fsync": True,
        "native: pandas, dump, over criu's": False,
    }
    del programs["pandas"]
    (row,) = dump(Results({"dump": {"programs": programs}})).rows
    assert row[1:4] == ["150 (150 to 150)", "400 (400 to 400)", "100 (100 to 100)"]
