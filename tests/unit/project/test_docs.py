"""What the documentation links to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LINK = re.compile(r"\[([^\]]+)\]\(([^)#]+)[^)]*\)")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def links(page: Path) -> list[tuple[str, Path]]:
    """Return the text and the target of each link to a file."""
    found = LINK.findall(page.read_text())
    return [(text, page.parent / target) for text, target in found if "://" not in target]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every file that is linked to exists, and has the tests that are named."""
    for text, target in links(page):
        assert target.exists(), f"{page.name}: {target}"
        named = re.findall(r"\btest_\w+", text)
        names = [name for name in named if name != target.stem]
        content = target.read_text() if names else ""
        missing = [name for name in names if f"def {name}(" not in content]
        assert not missing, f"{page.name}: {target.name} has no {missing}"


def test_parity_names_what_proves_it() -> None:
    """Each line of docs/parity.md has a link to a test, unless it says that there is nothing."""
    lines = (ROOT / "docs/parity.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and not line.startswith("|---")]
    assert len(rows) > 40
    for row in rows:
        _, ours, proof = row.strip("|").rsplit("|", 2) if row.count("|") == 4 else ("", "", row)
        if "proved by" in proof or ours.strip().startswith("none"):
            continue
        assert "../tests/" in proof, row
