"""A criu that is started here sets no hardware breakpoint, for which the kernel would wait for an RCU grace period."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import MODES
from tests.system.csrc.test_launcher import Copies, make
from tests.system.traced import Traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Mode

PROGRAM = "print('over')"


@pytest.fixture(name="traced")
def traced_fixture(tmp_path: Path) -> Traced:
    """Return a criu that is traced."""
    return Traced(tmp_path)


def directory_of(mode: Mode, path: Path) -> Path:
    """Make a directory for who dumps."""
    path.mkdir()
    mode.account.give(path)
    return path


def test_neither_dump_nor_restore_sets_a_breakpoint(
    mode_named: Callable[[str], Mode], traced: Traced, tmp_path: Path
) -> None:
    """Tasks are stopped at system calls instead; what criu once tries, to know its kernel, does not count."""
    mode = mode_named(MODES[0])._replace(criu=traced.path)
    make(mode, directory_of(mode, tmp_path / "first"), PROGRAM)  # criu tries once what its kernel can do
    traced.said()
    snapshot = make(mode, directory_of(mode, tmp_path / "second"), PROGRAM)
    dumped = traced.said()
    assert "PTRACE_SEIZE" in dumped
    assert "PTRACE_POKEUSER" not in dumped
    assert Copies(mode, snapshot).run().stdout == "over\n"
    restored = traced.said()
    assert "PTRACE_SYSCALL" in restored
    assert "PTRACE_POKEUSER" not in restored
