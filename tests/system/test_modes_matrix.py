"""
What can be open in a program, in each mode: the table in docs/unprivileged.md, line by line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.accounts import ROOT
from tests.system.matrix import PROGRAMS, attempt
from tests.system.privileges import capable_criu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account

MODES = ("root", "capability", "rootless")
DOCUMENT = ROOT / "docs" / "unprivileged.md"


@pytest.fixture(scope="module")
def documented() -> dict[str, dict[str, str]]:
    """
    Read the table: by program and mode, "yes" or why not.
    """
    text = DOCUMENT.read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- matrix: begin -->")
    table, _, _ = rest.partition("<!-- matrix: end -->")
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in table.strip().splitlines()]
    names = rows[0][1:]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows[2:]}


@pytest.fixture(scope="module")
def capable(account: Account) -> Iterator[Path]:
    """
    A criu with file capabilities.
    """
    with capable_criu(account) as path:
        yield path


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_program_holds_survives_as_documented(
    account: Account,
    own_account: Account,
    capable: Path,
    directory_of: Callable[[Account], Path],
    documented: dict[str, dict[str, str]],
    program: str,
    mode: str,
) -> None:
    """
    Where the table says yes it works; where it says no criu says so, and the program goes on.
    """
    who = own_account if mode == "root" else account
    env = {"LIBCRIU_PY_MODE": mode}
    if mode == "capability":
        env["LIBCRIU_PY_CRIU"] = str(capable)
    reason = attempt(program, who, directory_of(who), env)
    said = documented[program][mode]
    assert (reason is None) == (said == "yes"), f"the table says {said!r}; seen: {reason or 'it works'}"


def test_the_table_is_complete(documented: dict[str, dict[str, str]]) -> None:
    """
    Every program has a line, and every line a program.
    """
    assert documented.keys() == PROGRAMS.keys()
    assert all(tuple(row) == MODES for row in documented.values())
