"""A program that checkpoints itself and is started plainly."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tests.system.selfdump import SelfDump, start, write_program

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

CODE = """
import os, sys
from libcriu_py import after_restore, before_checkpoint, checkpoint
before_checkpoint(print, "before")
after_restore(print, "after")
with checkpoint("snap", **eval(sys.argv[1])) as snap:
    connection = None
    if "connection" in sys.argv:
        import socket
        connection = socket.create_connection(("127.0.0.1", int(sys.argv[3])))
print(snap.outcome.value, flush=True)
"""


class Plain(SelfDump):
    """A program, to be started plainly."""

    def start(self, settings: str, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Start it with settings of its checkpoint, arguments, and variables of ours."""
        argv = [self.mode.account.python, self.script, settings, *args]
        variables = {f"LIBCRIU_PY_{name}": value for name, value in env.items()}
        return self.mode.run(argv, cwd=self.path.parent, env=variables)


@pytest.fixture
def plain(mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]) -> Plain:
    """Return the program, in a directory without a snapshot."""
    root = mode_named("root")
    directory = directory_of(root.account)
    return Plain(root, directory / "snap", write_program(root, directory, CODE))


def test_says_what_was_taken_and_how_to_start_it(plain: Plain) -> None:
    """It is one line on stderr, whose command works."""
    done = plain.start("{}")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"libcriu-py: took a snapshot of this program, {plain.path} (")
    assert line.endswith(f"MB); start it: libcriu-py run {plain.path} -- ARGUMENTS")
    assert plain.run().stdout == "after\nrestored\n"


def test_second_start(plain: Plain) -> None:
    """It is an error, replaces the snapshot, or goes on in silence, as program or environment say."""
    inode = 0

    def replaced(done: subprocess.CompletedProcess[str]) -> bool:
        nonlocal inode
        assert done.returncode == 0, done.stderr
        assert "took a snapshot" in done.stderr
        inode, before = plain.path.stat().st_ino, inode
        return inode != before

    assert replaced(plain.start("{}"))
    assert "FileExistsError" in plain.start("{}").stderr
    assert replaced(plain.start("{'if_exists': 'replace'}"))
    assert replaced(plain.start("{'replace': True}"))
    assert replaced(plain.start("{'if_exists': 'continue'}", IF_EXISTS="replace"))
    assert replaced(plain.start("{'if_exists': 'continue'}", REPLACE="1"))
    for done in (plain.start("{'if_exists': 'continue'}"), plain.start("{'replace': True}", IF_EXISTS="continue")):
        assert (done.returncode, done.stdout, done.stderr) == (0, "before\nafter\nskipped\n", "")
    assert plain.path.stat().st_ino == inode


def test_something_else_in_the_snapshots_place(plain: Plain) -> None:
    """A directory with other files is no snapshot that is there already."""
    plain.path.mkdir()
    (plain.path / "letter").touch()
    assert "FileExistsError" in plain.start("{'if_exists': 'continue', 'if_impossible': 'continue'}").stderr


def test_impossible_dump(plain: Plain) -> None:
    """Where there is no criu, and where the program has what cannot be dumped, it goes on if that is wanted."""
    assert "BinaryNotFound" in plain.start("{}", CRIU="/none").stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = ("connection", str(server.getsockname()[1]))
        assert plain.start("{}", *connection).returncode == 1
        for done in (
            plain.start("{'if_impossible': 'continue'}", CRIU="/none"),
            plain.start("{}", CRIU="/none", IF_IMPOSSIBLE="continue"),
            plain.start("{'if_impossible': 'continue'}", *connection),
        ):
            assert (done.returncode, done.stdout) == (0, "before\nafter\nskipped\n")
            (line,) = done.stderr.splitlines()
            assert line.startswith("libcriu-py: no snapshot was made, and the program goes on without: ")
    assert not plain.path.exists()


def test_exception_of_a_hook_is_raised(plain: Plain) -> None:
    """It is the program's own, and no obstacle of the place."""
    done = plain.start("before_checkpoint(lambda: 1 / 0) and {'if_impossible': 'continue'}")
    assert done.returncode == 1
    assert "HookError" in done.stderr


def test_command_wants_a_snapshot(plain: Plain) -> None:
    """`libcriu-py snapshot` is not satisfied with a program that goes on, and says itself what was taken."""
    settings = "{'if_exists': 'continue', 'if_impossible': 'continue'}"
    for options in ([], ["--replace"]):
        done = start(plain.mode, plain.script, plain.path, settings, options=options)
        assert done.returncode == 0, done.stderr
        assert "took a snapshot" not in done.stderr
        assert "run it: libcriu-py run" in done.stdout
    done = start(plain.mode, plain.script, plain.path, settings, "connection", "1", options=["--replace"])
    assert done.returncode == 1
