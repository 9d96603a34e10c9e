"""The benchmarks make as many rounds as fit into their time."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from benchmarks.bench import LEAST, Bench, Budget
from benchmarks.measure import RunError
from benchmarks.suite import parse

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TURN = 0.03
"""Seconds; so many that a busy machine does not matter."""


def slow() -> float:
    """Be a measurement that takes a while."""
    time.sleep(TURN)
    return 1.0


def bench_of(*argv: str) -> Bench:
    """Make what an experiment of 7 rounds measures with, for a command line."""
    return Bench(parse(["touch", *argv]))


@pytest.mark.parametrize(
    ("argv", "least", "greatest"),
    [
        ([], 7, 7),
        (["--runs", "3"], 3, 3),
        (["--runs", "12", "--minutes", "1"], 12, 12),
        (["--runs", "1000", "--minutes", "0.02"], LEAST, 30),
        (["--runs", "3", "--minutes", "0.001"], 1, 3),
    ],
    ids=["default", "so many", "time for all", "time for some", "less time than needed"],
)
def test_rounds_fit_into_the_time(argv: list[str], least: int, greatest: int) -> None:
    """Without a time there are as many rounds as asked for, else as many of these as fit, the same for each item."""
    bench = bench_of(*argv)
    found = bench.turns("something", {"a": slow, "b": slow})
    assert len(found["a"]) == len(found["b"])
    assert least <= len(found["a"]) <= greatest
    assert bench.runs == str(len(found["a"]))


def test_rounds_are_at_least_five_for_half_as_long_again() -> None:
    """Five rounds are made even if they take somewhat longer; when there is no time for these either, it is said."""
    enough = Budget(12, 8 * 2 * TURN)
    assert max(number for number, _ in enough.rounds("ab", 0) if slow()) + 1 >= LEAST
    bench = bench_of("--runs", "12", "--minutes", str(3 * 2 * TURN / 60))
    found = bench.turns("something", {"a": slow, "b": slow})
    assert 1 <= len(found["a"]) < LEAST
    assert f"{LEAST - len(found['a'])} of {LEAST} rounds" in bench.skipped[-1]


def test_a_round_that_takes_too_long_is_left() -> None:
    """Once one round counts, an overrun ends in the middle of the next."""
    items = range(40)
    begun = [number for number, _ in Budget(12, 10 * TURN).rounds(items, 0) if number == 0 or slow()]
    assert len(items) < len(begun) < 2 * len(items)


def test_parts_share_what_is_left() -> None:
    """What the first of two parts does not use the second has."""
    whole = Budget(12, 100.0)
    first = whole.part(2)
    assert first.end - time.monotonic() == pytest.approx(50, abs=1)
    assert whole.part(1).end == pytest.approx(whole.end)
    assert not whole.exhausted
    assert Budget(12, 0.0).exhausted


def failing() -> Callable[[], float]:
    """Make a measurement that fails the second time."""
    calls = iter([1.0])

    def measure() -> float:
        for value in calls:
            return value
        message = "it has fallen over"
        raise RunError(message)

    return measure


def test_what_fails_is_left_out_and_named(tmp_path: Path) -> None:
    """The others go on; JSON has the reason, the machine and the number of rounds."""
    bench = bench_of("--runs", "2", "--results", str(tmp_path))
    assert bench.turns("something", {("one", 1): failing(), ("two", 2): lambda: 2.0}) == {("two", 2): [2.0, 2.0]}
    bench.write(values=[1])
    written = json.loads((tmp_path / "touch.json").read_text(encoding="utf-8"))
    assert written["skipped"] == ["one, 1 of something: it has fallen over"]
    assert (written["runs"], written["values"]) == ("2", [1])
    assert written["machine"]["cores"] >= 1


@pytest.mark.parametrize("argv", [["--runs", "0"], ["--minutes", "0"], ["--minutes", "-1"]])
def test_senseless_numbers_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """None of them would measure anything."""
    with pytest.raises(SystemExit):
        bench_of(*argv)
    assert argv[0] in capsys.readouterr().err
