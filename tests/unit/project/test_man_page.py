"""The man page, which is made from the parsers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from libcriu_py.cli._subcommands import SUBCOMMANDS

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "man_page.py"


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page's source."""
    return subprocess.run([sys.executable, SCRIPT], check=True, capture_output=True, text=True).stdout


def test_page_has_every_subcommand(page: str) -> None:
    """Each has a section with its options, examples and exit statuses."""
    titles = [line.replace("\\-", "-") for line in page.splitlines() if line.startswith(".SS ")]
    assert titles == [f".SS {name}" for name in SUBCOMMANDS]
    assert page.count("\nexit status:\n") == len(SUBCOMMANDS)
    for option in ("\\-\\-preload A,B", "\\-\\-no\\-fallback", "\\-q, \\-\\-quiet"):
        assert f"\n.B {option}\n" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_page_is_good_roff(page: str) -> None:
    """The formatter has nothing to complain of."""
    done = subprocess.run(["groff", "-man", "-ww", "-z"], input=page, capture_output=True, text=True, check=True)
    assert done.stderr == ""
