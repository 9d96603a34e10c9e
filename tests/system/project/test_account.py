"""The account without rights that the tests make for themselves."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.system.accounts import Account, run_as

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.conftest import Mode


def test_account_has_no_rights(account: Account) -> None:
    """It is not root, has no capability and no group but its own."""
    status = run_as(account, ["cat", "/proc/self/status"], check=True).stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(account.uid)} != {"0"}
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    if not account.is_self:
        assert fields["Groups"].split() in ([], [str(account.gid)])


def test_account_has_the_package_and_criu(account: Account) -> None:
    """Its interpreter imports the package, which finds a criu that runs."""
    code = "import libcriu_py.criu.find, libcriu_py.linux.ffi, pandas; print(libcriu_py.criu.find.find_criu())"
    found = run_as(account, [account.python, "-c", code], check=True).stdout.strip()
    assert found == str(account.criu)
    assert "Version:" in run_as(account, [found, "--version"], check=True).stdout


def test_directories_are_private(account: Account, directory_of: Callable[[Account], Path]) -> None:
    """A directory made for it is its own, and nobody else's."""
    path = directory_of(account)
    status = path.stat()
    assert (status.st_uid, status.st_mode & 0o777) == (account.uid, 0o700)
    run_as(account, ["touch", path / "file"], check=True)


def test_modes_restore(mode: Mode, directory_of: Callable[[Account], Path]) -> None:
    """In every mode a program is snapshotted and restored with arguments of its own."""
    directory = directory_of(mode.account)
    program = directory / "program.py"
    program.write_text("import sys, os\nprint(os.getuid(), *sys.argv[1:])\n", encoding="utf-8")
    mode.account.give(program)
    command: list[str | Path] = [mode.account.python, "-m", "libcriu_py"]
    mode.run([*command, "snapshot", "-o", directory / "snap", program], check=True)
    for word in ("one", "two"):
        done = mode.run([*command, "run", "--no-fallback", directory / "snap", "--", word])
        assert (done.returncode, done.stdout) == (0, f"{mode.account.uid} {word}\n"), done.stderr


def test_capability_criu_is_for_the_account_only(account: Account, capability_criu: Path) -> None:
    """The criu with file capabilities runs for the account, and no other user can reach it."""
    assert os.getxattr(capability_criu, "security.capability")
    assert capability_criu.stat().st_mode & 0o007 == 0
    assert "Version:" in run_as(account, [capability_criu, "--version"], check=True).stdout
