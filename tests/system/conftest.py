"""Fixtures of the tests that dump and restore: accounts, modes, and the check that nothing is left behind."""

from __future__ import annotations

import gc
import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.conftest import log_roots
from tests.system import leaks
from tests.system.accounts import Account, run_as
from tests.system.cli_command import Command
from tests.system.cli_start import SampleProgram, Way
from tests.system.privileges import capable_criu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

NATIVE = "native"
"""The engine that needs no right, tried by an account that has none."""

MODES = ("root", "rootless-as-root", "rootless", "capability", NATIVE) if os.geteuid() == 0 else ("rootless", NATIVE)
"""The ways to dump and restore that this test run can try: by criu as far as it may, and by the native engine."""


ONCE = tuple(name for name in MODES if name != "rootless-as-root")
"""
Each mode once: root by root, rootless and with file capabilities by an account without rights. Who is rootless makes a
difference to launchers and to the modes themselves.
"""

CRIU_MODES = tuple(name for name in MODES if name != NATIVE)
by_criu = pytest.mark.parametrize("mode", [name for name in ONCE if name != NATIVE], indirect=True)
"""For tests of what only criu can dump, such as children, or of its files."""

IN_PLACE = tuple(name for name in ONCE if name != "rootless")
"""Those in which programs are dumped and restored where they are, without being started by the command."""


class Mode(NamedTuple):
    """
    A way to be allowed, and who uses it.

    Attributes:
        name: The name in the test's id.
        value: What LIBCRIU_PY_MODE is set to.
        account: Who runs the programs.
        criu: A criu with file capabilities, for the mode that needs one.
    """

    name: str
    value: str
    account: Account
    criu: Path | None = None

    def run(self, argv: Sequence[object], **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a program in this mode; the options are those of `run_as`."""
        env = {**self.env, **(options.pop("env", None) or {})}
        return run_as(self.account, argv, env=env, **options)

    @property
    def env(self) -> dict[str, str]:
        """The variables that force engine and mode."""
        criu = {} if self.criu is None else {"LIBCRIU_PY_CRIU": str(self.criu)}
        return {"LIBCRIU_PY_ENGINE": self.engine, "LIBCRIU_PY_MODE": self.value, **criu}

    @property
    def engine(self) -> str:
        """The engine that dumps and restores."""
        return NATIVE if self.name == NATIVE else "criu"

    @property
    def prefix(self) -> list[str]:
        """What a command line begins with that runs a program in this mode, whoever starts it; it takes its place."""
        variables = {**self.account.environment(), **self.env}
        env = ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items())]
        if self.account.is_self:
            return env
        env.insert(1, "--unset=TMPDIR")
        ids = ["--reuid", str(self.account.uid), "--regid", str(self.account.gid), "--clear-groups"]
        return ["/usr/bin/setpriv", *ids, *env]

    @property
    def command(self) -> list[str]:
        """The command `libcriu-py` in this mode, up to its arguments."""
        return [*self.prefix, str(self.account.python), "-m", "libcriu_py"]


@pytest.fixture(scope="session", autouse=True)
def test_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Mark all processes of this run, and give it a directory of its own for temporary files."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("tmp"))
    os.environ.update({leaks.MARKER: secrets.token_hex(8), "TMPDIR": tempfile.tempdir})
    yield
    leaks.kill(set(leaks.observe().processes))
    del os.environ[leaks.MARKER], os.environ["TMPDIR"]
    tempfile.tempdir = None


@pytest.fixture(autouse=True)
def nothing_left_behind(test_session: None) -> Iterator[None]:
    """Fail a test that leaves a descriptor, a zombie, a process or a temporary file."""
    gc.freeze()  # to go through what pytest and all test modules consist of would take 50 ms each time
    before = leaks.observe()
    yield
    left = leaks.left_behind(before)
    gc.unfreeze()
    if left:
        pytest.fail("the test has left something behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture(scope="session")
def own_account(criu_binary: Path) -> Account:
    """Return the account that runs the tests."""
    return Account(pwd.getpwuid(os.geteuid()).pw_name, criu_binary)


def _change_accounts(program: str, *arguments: str) -> None:
    """Run useradd or userdel, which wait 15 s for each other; another test run on this machine may take longer."""
    argv = [f"/usr/sbin/{program}", *arguments]
    complaint = ""
    for _ in range(5):
        # userdel says on stderr that there was no mail to remove.
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        complaint = done.stderr.strip()
        if "cannot lock" not in complaint:
            break
    message = f"{' '.join(argv)} failed: {complaint}"
    raise RuntimeError(message)


@pytest.fixture(scope="session")
def account(own_account: Account, criu_binary: Path) -> Iterator[Account]:
    """Yield an account without any rights: one made for this run, or the one that runs it where that is not root."""
    if os.geteuid() != 0:
        yield own_account
        return
    name = f"lcp-test-{secrets.token_hex(4)}"  # pids repeat in namespaces
    _change_accounts("useradd", "--create-home", "--shell", "/bin/sh", name)
    try:
        made = Account(name, criu_binary)
        leaks.uids.add(made.uid)
        yield made
        shutil.rmtree(f"/dev/shm/libcriu_py-{made.uid}", ignore_errors=True)
    finally:
        _change_accounts("userdel", "--force", "--remove", name)


@pytest.fixture
def directory_of(request: pytest.FixtureRequest) -> Iterator[Callable[[Account], Path]]:
    """Make empty directories that are an account's own; a failed test prints the logs in them."""
    made: list[Path] = []

    def make(account: Account) -> Path:
        made.append(account.directory())
        request.node.stash.setdefault(log_roots, []).append(made[-1])
        return made[-1]

    yield make
    for path in made:
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def mode_named(request: pytest.FixtureRequest, own_account: Account) -> Callable[[str], Mode]:
    """Return what finds a mode by its name, making what it needs."""

    def find(name: str) -> Mode:
        criu = request.getfixturevalue("capability_criu") if name == "capability" else None
        account = own_account if name in {"root", "rootless-as-root"} else request.getfixturevalue("account")
        value = "auto" if name == NATIVE else name.removesuffix("-as-root")
        return Mode(name, value, account, criu)

    return find


@pytest.fixture(scope="session")
def program_in(mode_named: Callable[[str], Mode]) -> Iterator[Callable[[str], SampleProgram]]:
    """Yield what finds the test program of the command for a mode, with a snapshot that is made once."""
    made: dict[str, SampleProgram] = {}

    def find(name: str) -> SampleProgram:
        if name not in made:
            mode = mode_named(name)
            made[name] = SampleProgram.in_directory(mode, mode.account.directory())
        return made[name]

    yield find
    for program in made.values():
        if program.directory.exists():  # else it went with its account
            shutil.rmtree(program.directory)


@pytest.fixture(scope="module", params=MODES)
def program(request: pytest.FixtureRequest, program_in: Callable[[str], SampleProgram]) -> SampleProgram:
    """Return the test program of the command in each mode."""
    return program_in(request.param)


@pytest.fixture(scope="module", params=("conventional", *MODES))
def way(request: pytest.FixtureRequest, program_in: Callable[[str], SampleProgram]) -> Way:
    """Each way to start the test program: conventionally, and restored in each mode."""
    if request.param == "conventional":
        program = program_in(MODES[0])
        return Way(program.mode, program.conventional)
    program = program_in(request.param)
    return Way(program.mode, program.restored)


@pytest.fixture(scope="module")
def start(way: Way) -> list[str]:
    """Return what starts the test program in each of these ways, up to its arguments."""
    return way.argv


@pytest.fixture(params=ONCE)
def mode(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Mode:
    """
    Each way to be allowed: root by root, rootless and with file capabilities by an account without rights.

    Who is rootless as root is a matter of `MODES`, for tests of the launchers and of the modes themselves.
    """
    return mode_named(request.param)


@pytest.fixture
def command(mode: Mode, directory_of: Callable[[Account], Path]) -> Command:
    """Return the command in each mode."""
    return Command(mode, directory_of(mode.account))


@pytest.fixture
def one(own_account: Account, mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]) -> Command:
    """Return the command in one mode, for what does not depend on it."""
    return Command(mode_named("root"), directory_of(own_account))


@pytest.fixture(scope="session")
def capability_criu(account: Account) -> Iterator[Path]:
    """Yield a copy of criu with the file capabilities needed here, which only the account and root can run."""
    with capable_criu(account) as path:
        yield path
