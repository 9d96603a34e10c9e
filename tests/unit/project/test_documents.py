"""The tests that documents name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS = ("docs/unprivileged.md", "docs/containers.md", "docs/mapped-memory.md", "docs/standby.md", "SECURITY.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_test_is_there(document: str) -> None:
    """Files by their names, functions by theirs."""
    named = set(re.findall(r"\btest_\w+(?:\.py)?", (ROOT / document).read_text(encoding="utf-8")))
    files = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    pattern = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
    functions = {name for text in files.values() for name in pattern.findall(text)}
    assert named <= files.keys() | functions
