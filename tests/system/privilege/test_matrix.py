"""What can be open in a program, in each mode: the table in docs/unprivileged.md, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system import matrix
from tests.system.privileges import capable_criu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.accounts import Account


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[matrix.Table]:
    """Yield the table as it is documented; or an empty one that is documented once it has been filled."""
    if not request.config.getoption("--write-matrix"):
        yield matrix.documented()
        return
    seen: matrix.Table = {program: {} for program in matrix.PROGRAMS}
    yield seen
    matrix.write(seen)


@pytest.fixture(scope="module")
def capable(account: Account) -> Iterator[Path]:
    """Yield a criu with file capabilities."""
    with capable_criu(account) as path:
        yield path


@pytest.mark.parametrize("mode", matrix.MODES)
@pytest.mark.parametrize("program", matrix.PROGRAMS)
def test_what_a_program_holds_survives_as_documented(
    request: pytest.FixtureRequest,
    account: Account,
    own_account: Account,
    capable: Path,
    directory_of: Callable[[Account], Path],
    table: matrix.Table,
    program: str,
    mode: str,
) -> None:
    """Where the table says yes it works; where it says no criu says so, and the program goes on."""
    who = own_account if mode == "root" else account
    env = {"LIBCRIU_PY_MODE": mode}
    if mode == "capability":
        env["LIBCRIU_PY_CRIU"] = str(capable)
    reason = matrix.attempt(program, who, directory_of(who), env)
    seen = matrix.cell(program, works=reason is None)
    if request.config.getoption("--write-matrix"):
        table[program][mode] = seen
    assert table[program][mode] == seen, f"the table says {table[program][mode]!r}; seen: {reason or 'it works'}"


def test_the_table_is_complete() -> None:
    """Every program has a line, and every line a program."""
    written = matrix.documented()
    assert written.keys() == matrix.PROGRAMS.keys()
    assert all(tuple(row) == matrix.MODES for row in written.values())
