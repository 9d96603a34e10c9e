"""The units of C include downward only, and the names that they share have one prefix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[3] / "libcriu_py" / "csrc"
BELOW = {
    "common": set(),
    "binding": {"common"},
    "copy": {"common"},
    "native": {"copy", "common"},
    "supervise": {"common"},
    "become": {"common"},
    "restore": {"become", "supervise", "common"},
    "launcher": {"restore", "supervise", "common"},
    "portable": set(),
}
"""What the units of a folder may include beside those of their own."""
SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".c", ".h"})
INCLUDE = re.compile(r'^#include "([\w/]+)\.h"', re.MULTILINE)
FUNCTION = re.compile(r"^(?!static\b|typedef\b)\w[\w\s*]*?\b(\w+)\([^;{}]*\)\n\{", re.MULTILINE)


def unit_of(path: Path) -> str:
    """Return the unit that a file belongs to, as its header is included."""
    return path.relative_to(CSRC).with_suffix("").as_posix()


def included(path: Path) -> set[str]:
    """Return the other units of ours that a file includes."""
    found = {*INCLUDE.findall(path.read_text(encoding="utf-8"))} - {"criu", unit_of(path)}
    return {unit for unit in found if not unit.startswith("criu/")}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(CSRC).as_posix())
def test_includes_go_down(path: Path) -> None:
    """A unit includes headers of its own folder and of those below, by their folder's name."""
    folder = unit_of(path).split("/")[0]
    for unit in included(path):
        assert (CSRC / f"{unit}.h").is_file()
        assert unit.split("/")[0] in BELOW[folder] | {folder}


def test_no_circles() -> None:
    """No unit includes itself by way of others."""
    left: dict[str, set[str]] = {}
    for path in SOURCES:
        left.setdefault(unit_of(path), set()).update(included(path))
    while lowest := [unit for unit, others in left.items() if not others & left.keys()]:
        for unit in lowest:
            del left[unit]
    assert not left


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parent.name != "portable"],  # those are libc's names
    ids=lambda path: path.relative_to(CSRC).as_posix(),
)
def test_names_have_a_prefix(path: Path) -> None:
    """A function that other units can call is named lcp_."""
    names = {*FUNCTION.findall(path.read_text(encoding="utf-8"))} - {"main"}
    assert {name for name in names if not name.startswith("lcp_")} == set()
