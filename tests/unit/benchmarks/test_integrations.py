"""The measurement of starts of other people's software."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.integrations import Case
from benchmarks.integrations.__main__ import find, measure, table
from benchmarks.measure import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_cases_are_measured_in_turns(tmp_path: Path) -> None:
    """Each case is started once in both ways before any is started again, and the other way first in the next turn."""
    done: list[str] = []

    def case(name: str, conventional: float, warm: float) -> Case:
        def start(way: str, seconds: float) -> float:
            done.append(f"{name} {way}")
            return seconds

        return Case(
            name,
            3,
            prepare=lambda place: done.append(f"prepare {name} {place.is_dir()}"),
            conventional=lambda _: start("conventional", conventional),
            warm=lambda _: start("warm", warm),
            clean=lambda _: done.append(f"clean {name}"),
        )

    text = table(measure([case("a", 0.8, 0.1), case("b", 0.8, 0.4)], 1, tmp_path), 1)
    first = ["a warm", "a conventional", "b warm", "b conventional"]
    second = ["a conventional", "a warm", "b conventional", "b warm"]
    assert done == ["prepare a True", "prepare b True", *first, *second, "clean b", "clean a"]
    assert "| a | 800 (800 to 800) | 100 (100 to 100) | 8.0 | 3 |\n" in text
    assert "| b | 800 (800 to 800) | 400 (400 to 400) | 2.0 | 3, missed |\n" in text


def test_what_cannot_be_measured_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A case that lacks something or fails keeps no other from being measured."""

    def lack(_: Path) -> None:
        raise Unavailable("redis-server is not installed")

    def fail(_: Path) -> float:
        raise OSError("it ended")

    cases = [
        Case("lacks", 3, lack, lambda _: 1, lambda _: 1),
        Case("fails", 3, lambda _: None, lambda _: 1, fail),
        Case("works", 3, lambda _: None, lambda _: 4, lambda _: 1),
    ]
    text = table(measure(cases, 2, tmp_path), 2)
    assert "| works | 4000 (4000 to 4000) | 1000 (1000 to 1000) | 4.0 | 3 |\n" in text
    assert text.count("| lacks |") == text.count("| fails |") == 0
    assert "Not measured: lacks: redis-server is not installed." in text
    assert "Not measured: fails: OSError: it ended." in text
    assert "OSError: it ended" in capsys.readouterr().err


def test_every_module_has_cases() -> None:
    """All modules of the package are found, each with cases of different names."""
    names = [case.name for case in find(())]
    assert len(set(names)) == len(names)
