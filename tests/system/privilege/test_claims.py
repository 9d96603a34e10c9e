"""What docs/unprivileged.md says of CRIU's options without root, and of what a rootless program sees."""

from __future__ import annotations

import json
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from tests.system.cli_start import TIMEOUT
from tests.system.conftest import by_criu
from tests.system.selfdump import take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

    Directories = Callable[[Account], Path]


@by_criu
def test_connections_are_closed_on_request(mode: Mode, directory_of: Directories) -> None:
    """tcp_close leaves them out, where dumping them takes CAP_NET_ADMIN; nothing is asked of the firewall."""
    code = """
    import socket
    from libcriu_py import checkpoint
    from libcriu_py.criu.options import NetworkLock
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    with checkpoint(options={"tcp_close": True, "network_lock": NetworkLock.SKIP}):
        pass
    for end in (client, accepted):
        try:
            end.getpeername()
        except OSError:
            print("closed")
    """
    done = take(mode, directory_of(mode.account), code).run()
    assert done.stdout == "closed\nclosed\n", done.stderr


@by_criu
def test_sockets_with_another_end_outside(mode: Mode, directory_of: Directories) -> None:
    """With ext_unix_sk a datagram socket is connected to the same path again."""
    code = """
    import socket, sys
    from libcriu_py import checkpoint
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.connect(sys.argv[1])
    with checkpoint(options={"ext_unix_sk": True}):
        pass
    ours.send(b"hello")
    """
    directory = directory_of(mode.account)
    path = directory / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        path.chmod(0o777)
        other.settimeout(TIMEOUT)
        done = take(mode, directory, code, str(path)).run()
        assert done.returncode == 0, done.stderr
        assert other.recv(10) == b"hello"


@pytest.mark.parametrize("skip", [True, False])
@by_criu
def test_modes_of_files_are_compared_unless_told_not_to(mode: Mode, directory_of: Directories, *, skip: bool) -> None:
    """skip_file_rwx_check of the dump holds for each restore."""
    code = f"""
    import sys
    from libcriu_py import checkpoint
    file = open(sys.argv[1])
    with checkpoint(options={{"skip_file_rwx_check": {skip}}}):
        pass
    print(file.read())
    """
    directory = directory_of(mode.account)
    data = directory / "data"
    data.write_text("content")
    data.chmod(0o644)
    dump = take(mode, directory, code, str(data))
    data.chmod(0o664)
    done = dump.run()
    if skip:
        assert done.stdout == "content\n", done.stderr
    else:
        assert done.returncode in {125, 126}
        assert "mode" in done.stderr


@by_criu
def test_options_of_the_command_line_are_passed_on(mode: Mode, directory_of: Directories) -> None:
    """What only criu's command line has goes into its configuration file: here a limit that refuses a deleted file."""
    code = """
    import tempfile
    from libcriu_py import OperationRefused, checkpoint
    file = tempfile.TemporaryFile()
    file.write(bytes(200_000))
    file.flush()
    try:
        with checkpoint(options={"config": {"ghost-limit": 100_000}}):
            pass
    except OperationRefused as error:
        print("refused:", error)
    """
    with pytest.raises(AssertionError, match=r"refused: .*ghost"):
        take(mode, directory_of(mode.account), code, env={"LIBCRIU_PY_PREFLIGHT": "off"})


def test_configuration_file_is_not_left_in_the_snapshot(mode: Mode, directory_of: Directories) -> None:
    """It is there for the dump only, and a copy does not look for it."""
    code = """
    from libcriu_py import checkpoint
    with checkpoint(options={"config": {"ghost-limit": 100_000}}):
        pass
    print("here")
    """
    dump = take(mode, directory_of(mode.account), code)
    assert not list(dump.path.rglob("*.conf"))
    done = dump.run()
    assert done.stdout == "here\n", done.stderr


def test_what_a_rootless_program_sees(mode_named: Callable[[str], Mode], directory_of: Directories) -> None:
    """Its parent is pid 1, no other process is there, other users' files are nobody's, set-user-id has no effect."""
    mode = mode_named("rootless")
    code = """
    import json, os, subprocess, sys, time
    from libcriu_py import checkpoint
    with checkpoint():
        pass
    end = time.monotonic() + 30
    while os.path.exists("/proc/2") and time.monotonic() < end:
        time.sleep(0.01)  # criu, which has let go of this program but may not have ended
    seen = {
        "parent": os.getppid(), "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
        "own": os.getpid(), "uid": os.getuid(), "owner": os.stat("/").st_uid,
        "effective": subprocess.run([sys.argv[1], "-u"], capture_output=True, text=True).stdout.strip(),
    }
    print(json.dumps(seen))
    """
    directory = directory_of(mode.account)
    program = directory / "id"
    shutil.copy("/usr/bin/id", program)
    program.chmod(0o4755)
    done = take(mode, directory, code).run(str(program))
    seen = json.loads(done.stdout)
    assert seen["parent"] == 2  # the process between it and pid 1
    assert seen["pids"] == [1, 2, seen["own"]]
    assert seen["uid"] == mode.account.uid
    assert seen["effective"] == str(mode.account.uid)
    if mode.account.uid != program.parent.parent.stat().st_uid:
        assert seen["owner"] == 65534
