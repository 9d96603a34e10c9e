"""A copy is the process that was started for those who know it by its pid, and its interpreter takes any options."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from libcriu_py import PIPE, restore
from tests.system.conftest import MODES, Mode
from tests.system.csrc.test_launcher import Copies, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account

PROGRAM = """
import os, sys
names = ("LISTEN_PID", "WATCHDOG_PID", "OTHER_PID", "PORT")
print([os.environ.get(name) == str(os.getpid()) for name in names], os.environ["PORT"])
if os.environ.get("LISTEN_FDS"):
    import socket
    print(socket.socket(fileno=3).getsockname())
"""
ACTIVATE = """
import os, socket, sys
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
pid = str(os.getpid())
os.environ.update(LISTEN_PID=pid, WATCHDOG_PID=pid, OTHER_PID="1", PORT=pid, LISTEN_FDS="1")
print(pid, listener.getsockname(), flush=True)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""What systemd does for a service with a socket (sd_listen_fds(3), sd_watchdog_enabled(3))."""


@pytest.fixture(scope="module", params=MODES)
def mode(request: pytest.FixtureRequest, mode_named: Callable[[str], Mode]) -> Mode:
    """Return each mode."""
    return mode_named(request.param)


@pytest.fixture
def directory(mode: Mode, directory_of: Callable[[Account], Path]) -> Path:
    """Return a directory of the account's own."""
    return directory_of(mode.account)


def test_variables_that_name_the_launcher_name_the_copy(mode: Mode, directory: Path) -> None:
    """Its own pid, wherever it is; what is no pid stays, and a handed-in socket is where it was."""
    copies = Copies(mode, make(mode, directory, PROGRAM))
    argv = [mode.account.python, "-c", ACTIVATE, *copies.command, "--no-fallback", copies.path]
    done = mode.run(argv, env=copies.env)
    assert done.returncode == 0, done.stderr
    (pid, address), *told = (
        line.split(maxsplit=1) if not at else line for at, line in enumerate(done.stdout.splitlines())
    )
    assert told[0] in {f"[True, True, False, {same}] {pid}" for same in (True, False)}
    assert told[1] == address


@pytest.mark.parametrize("options", [["-u"], ["-B"], ["-I", "-W", "error"], ["-OO"], ["-X", "utf8"], ["-Ec"]])
def test_options_of_an_interpreter(mode: Mode, directory: Path, options: list[str]) -> None:
    """What a restored interpreter cannot take starts a new one, which takes it."""
    code = "import sys; f = sys.flags; print(f.optimize, f.isolated, f.ignore_environment, sys.argv[1:])"
    done = mode.run(
        [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap", "--preload", "json"]
    )
    assert done.returncode == 0, done.stderr
    rest = [code, "a"] if options[-1].endswith("c") else ["-c", code, "a"]
    conventional = mode.run([mode.account.python, *options, *rest])
    assert conventional.returncode == 0, conventional.stderr
    copies = Copies(mode, directory / "snap")
    done = copies.run(*options, *rest, options=())
    assert (done.returncode, done.stdout, done.stderr) == (0, conventional.stdout, "")
    done = copies.run(*options, *rest)
    assert (done.returncode, done.stdout, done.stderr) == (0, conventional.stdout, "")
    if mode.account.is_self:
        with restore(directory / "snap", [*options, *rest], mode=mode.value, stdout=PIPE) as process:
            assert process.communicate()[0].decode() == conventional.stdout
        assert process.returncode == 0


def test_version_of_an_interpreter(mode: Mode, directory: Path) -> None:
    """It is printed as by any other."""
    done = mode.run(
        [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", directory / "snap", "--preload", "json"]
    )
    assert done.returncode == 0, done.stderr
    done = Copies(mode, directory / "snap").run("-V", options=("-q",))
    assert (done.returncode, done.stdout, done.stderr) == (0, mode.run([mode.account.python, "-V"]).stdout, "")
