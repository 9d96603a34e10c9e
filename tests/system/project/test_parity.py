"""Options of criu that OpenJ9's CRIUSupport has setters for, given to a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.conftest import Mode
from tests.system.selfdump import start, take, write_program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account

    Directories = Callable[[Account], Path]


@pytest.fixture
def root(own_account: Account) -> Mode:
    """Return the mode in which criu may do most."""
    return Mode("root", "root", own_account)


def test_established_connection(root: Mode, directory_of: Directories) -> None:
    """With tcp_established a connection goes on in a copy, with what was under way in it."""
    code = """
    import socket
    from libcriu_py import checkpoint
    from libcriu_py.criu.options import NetworkLock
    server = socket.create_server(("127.0.0.1", 0))
    near = socket.create_connection(server.getsockname())
    far, _ = server.accept()
    near.sendall(b"sent before, ")
    with checkpoint(options={"tcp_established": True, "network_lock": NetworkLock.SKIP}):
        pass
    near.sendall(b"and after")
    near.shutdown(socket.SHUT_WR)
    print(far.makefile().read())
    """
    copy = take(root, directory_of(root.account), code).run()
    assert copy.stdout == "sent before, and after\n", copy.stderr


@pytest.mark.parametrize("skip", [False, True])
def test_connection_that_is_not_accepted(root: Mode, directory_of: Directories, *, skip: bool) -> None:
    """With tcp_skip_in_flight what waits for accept is left out; without it criu refuses, and the message names it."""
    code = """
    import socket, subprocess, sys
    from libcriu_py import checkpoint
    from libcriu_py.criu.options import NetworkLock
    server = socket.create_server(("127.0.0.1", 0))
    program = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])))"
    def connect():
        subprocess.run([sys.executable, "-c", program, str(server.getsockname()[1])], check=True)
    connect()
    options = {"tcp_skip_in_flight": True} if sys.argv[1] == "True" else {}
    with checkpoint(options={**options, "network_lock": NetworkLock.SKIP}):
        pass
    connect()
    server.accept()
    server.setblocking(False)
    try:
        server.accept()
    except BlockingIOError:
        print("one connection")
    """
    directory = directory_of(root.account)
    if not skip:
        refused = start(root, write_program(root, directory, code), directory / "snap", "False")
        assert "tcp_skip_in_flight" in refused.stderr
        assert not (directory / "snap").exists()
        return
    copy = take(root, directory, code, "True").run("True")
    assert copy.stdout == "one connection\n", copy.stderr


def test_log_level(root: Mode, directory_of: Directories) -> None:
    """The log of a dump is in the snapshot, as long as it is asked for."""
    code = """
    import sys
    from libcriu_py import checkpoint
    with checkpoint(options={"log_level": int(sys.argv[1])}):
        pass
    """
    directory = directory_of(root.account)
    logs = [(take(root, directory, code, level, name=level).path / "dump.log").read_text() for level in ("1", "4")]
    assert "Dumping finished successfully" not in logs[0]
    assert "Dumping finished successfully" in logs[1]


def test_overrides_from_outside(root: Mode, directory_of: Directories) -> None:
    """Variables of the environment go before what a program says of its checkpoint."""
    code = """
    from libcriu_py import checkpoint
    with checkpoint(options={"log_level": 4}) as snap:
        pass
    print(snap.outcome.value)
    """
    directory = directory_of(root.account)
    env = {"LIBCRIU_PY_THEN": "continue", "LIBCRIU_PY_OPTIONS": '{"log_level": 1}'}
    done = start(root, write_program(root, directory, code), directory / "snap", env=env)
    assert done.stdout.splitlines()[0] == "continued", done.stderr
    assert "Dumping finished successfully" not in (directory / "snap" / "dump.log").read_text()
