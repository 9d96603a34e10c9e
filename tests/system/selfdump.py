"""Programs that checkpoint themselves, and their restored copies, in each mode."""

from __future__ import annotations

import json
import textwrap
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

    from tests.system.conftest import Mode

REPORT = """
import json, os, sys, time
from libcriu_py import checkpoint

def report(snap):
    umask = os.umask(0)
    os.umask(umask)
    print(json.dumps({
        "argv": [os.fsencode(a).hex() for a in sys.argv[1:]],
        "orig_argv": [os.fsencode(a).hex() for a in sys.orig_argv[len(sys.orig_argv) - len(sys.argv) + 1:]],
        "env": {os.fsencode(k).hex(): os.fsencode(v).hex() for k, v in os.environ.items()},
        "cwd": os.getcwd(), "umask": umask, "outcome": snap.outcome.value, "downtime": snap.downtime,
        "pid": os.getpid(), "stdin": sys.stdin.read(),
    }), flush=True)
"""
"""A beginning of programs that print what they were given."""

PLAIN = (
    REPORT
    + """
with checkpoint() as snap:
    warm = list(range(1000))
report(snap)
sys.exit(len(warm) // 100)
"""
)
"""A program that does, and ends with status 10."""


class SelfDump(NamedTuple):
    """
    A snapshot made by a program of its own.

    Attributes:
        mode: How it was allowed.
        path: The snapshot.
        script: The program.
    """

    mode: Mode
    path: Path
    script: Path

    def run(self, *args: str | bytes, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run a restored copy by the command, without fallback; the options are those of `run_as`."""
        command = [self.mode.account.python, "-m", "libcriu_py", "run", "--no-fallback", self.path, "--", *args]
        return self.mode.run(command, **without_engine(options))

    def report(self, *args: str | bytes, **options: Any) -> Any:
        """Run a restored copy of a program that reports, and give what it says."""
        done = self.run(*args, **options)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def call(self, code: str, *args: str | Path, **options: Any) -> subprocess.CompletedProcess[Any]:
        """Run code that uses the API, with the snapshot's path as its first argument, as the snapshot's owner."""
        argv = [self.mode.account.python, "-c", textwrap.dedent(code), self.path, *args]
        done = self.mode.run(argv, **without_engine(options))
        assert done.returncode == 0, done.stderr
        return done


def without_engine(options: dict[str, Any]) -> dict[str, Any]:
    """Leave the engine to the snapshot, and in copies to their program, which may say "simulate"."""
    return {**options, "env": {"LIBCRIU_PY_ENGINE": "", **(options.get("env") or {})}}


def write_program(mode: Mode, directory: Path, code: str) -> Path:
    """Write a program that the mode's account can read; one that is there stays what its snapshots hold the code of."""
    source = textwrap.dedent(code)
    script = directory / "program.py"
    if script.exists() and script.read_text(encoding="utf-8") != source:
        script = directory / f"program-{zlib.crc32(source.encode()):08x}.py"
    if not script.exists():
        script.write_text(source, encoding="utf-8")
        mode.account.give(script)
    return script


def start(
    mode: Mode,
    script: Path,
    snapshot: Path,
    *args: str,
    options: Sequence[str] = (),
    own: bool = True,
    **more: Any,
) -> subprocess.CompletedProcess[Any]:
    """Start a program where it may checkpoint itself, and give what came of it."""
    command = [mode.account.python, "-m", "libcriu_py", "snapshot", "-o", snapshot, *options, script, *args]
    if own:
        command.insert(4, "--self")
    return mode.run(command, **more)


def take(mode: Mode, directory: Path, code: str = PLAIN, *args: str, name: str = "snap", **more: Any) -> SelfDump:
    """
    Let a program checkpoint itself.

    Args:
        mode: How it is allowed.
        directory: A directory of the mode's account, for program and snapshot.
        code: The program.
        args: Its arguments.
        name: Of the snapshot.
        more: Options of `run_as`.
    """
    script = write_program(mode, directory, code)
    done = start(mode, script, directory / name, *args, **more)
    assert done.returncode == 0, done.stderr + done.stdout
    return SelfDump(mode, directory / name, script)
