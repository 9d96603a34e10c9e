"""What a copy's hand-over in C leaves to Python, and what its program sees of it: nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher
from tests.system.cli_command import Command, write
from tests.system.counts import count_family

if TYPE_CHECKING:
    from pathlib import Path

MOST_PAGE_FAULTS = 420
"""They were 950 when all of it was done in Python."""
FAST = ("--exit", "fast", "--learn", "")
SEEN = """
import os, sys
from libcriu_py.linux import arrival
umask = os.umask(0)
print(arrival.state() == arrival.APPLIED, sys.argv[1:], sys.orig_argv[2:], os.getcwd(), oct(umask), os.environ["OF"])
print(__name__, os.path.basename(__file__), sys.path[0] == os.path.dirname(os.path.realpath(__file__)))
print(sorted(map(int, os.listdir("/proc/self/fd")))[:-1] == [0, 1, 2])
"""
STREAMS = """
import codecs, sys
for stream in (sys.stdin, sys.stdout, sys.stderr):
    at_once = stream is not sys.stdin and stream.write_through
    print(codecs.lookup(stream.encoding).name, stream.errors, stream.line_buffering, at_once, stream.mode)
print(sys.stdin.read(), sys.stdout.seekable(), sys.stdout.tell() if sys.stdout.seekable() else None)
"""


def snap(command: Command, source: str, *options: str, name: str = "program.py") -> tuple[Path, Path]:
    """Return a snapshot of a script, and the script."""
    script = write(command.place / name, source)
    snapshot = command.place / "snap"
    done = command("snapshot", "-o", snapshot, *FAST, *options, script, env={"OF": "the dump"})
    assert done.returncode == 0, done.stderr
    return snapshot, script


def test_a_usual_start(command: Command) -> None:
    """C applies the request, and the program is as if Python had just started it."""
    snapshot, script = snap(command, SEEN)
    place = command.place / "elsewhere"
    place.mkdir()
    place.chmod(0o755)
    seen = command.restored(snapshot, "one", "zwei\xe4", env={"OF": "the start"}, cwd=place).splitlines()
    words = ["one", "zwei\xe4"]
    umask = oct(os.umask(0o022))
    os.umask(int(umask, 8))
    assert seen[0] == f"True {words} {words} {place} {umask} the start"
    assert seen[1:] == [f"__main__ {script.name} True", "True"]


def test_a_main_module_that_changed(one: Command) -> None:
    """The file counts, not what was compiled before the dump: as it is now, wherever a link leads, or is missing."""
    snapshot, script = snap(one, "print('as it was')\n")
    assert one.restored(snapshot) == "as it was\n"
    times = script.stat()
    script.write_text("print('as it is!')\n")
    os.utime(script, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert one.restored(snapshot) == "as it is!\n"
    other = write(one.place / "other" / "program.py", "import sys\nprint('as it was', sys.path[0])\n")
    script.unlink()
    script.symlink_to(other)
    assert one.restored(snapshot) == f"as it was {other.parent}\n"
    script.unlink()
    done = one("run", "--no-fallback", snapshot)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"can't open file '{script}': [Errno 2]" in done.stderr


@pytest.mark.parametrize("ending", ["raise KeyError('x')", "sys.exit('a message')", "sys.exit(300)", "sys.exit(True)"])
def test_ends_as_a_conventional_start(one: Command, ending: str) -> None:
    """Status and traceback are the same, and what is left to do at the end is done."""
    source = f"""
import atexit, sys, threading
def main():
    kept = open("left", "w")
    globals().update(kept=kept)
    kept.write("flushed")
    atexit.register(print, "at exit")
    threading.Timer(0.1, print, ("thread",)).start()
    {ending}
main()
"""
    snapshot, script = snap(one, source)
    conventional = one.mode.run([one.mode.account.python, script], cwd=one.place)
    (one.place / "left").unlink()
    restored = one("run", "--no-fallback", snapshot, cwd=one.place)
    assert (restored.returncode, restored.stdout) == (conventional.returncode, conventional.stdout)
    assert restored.stderr == conventional.stderr
    assert (one.place / "left").read_text() == "flushed"


@pytest.mark.parametrize(
    "variables", [{}, {"PYTHONUNBUFFERED": "1"}, {"PYTHONIOENCODING": "latin-1:replace"}, {"LC_ALL": "C"}]
)
def test_streams(one: Command, variables: dict[str, str]) -> None:
    """Whatever they are and the variables say, they are set up as Python sets them up."""
    snapshot, script = snap(one, STREAMS)
    target = one.place / "output"
    for command in ([one.mode.account.python, script], [one.mode.account.python, "-m", "libcriu_py", "run", snapshot]):
        for given in (None, "text"):
            done = one.mode.run(command, env=variables, input=given)
            assert done.returncode == 0, done.stderr
            target.write_text(target.read_text() + done.stdout if target.exists() else done.stdout)
    lines = target.read_text().splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_variables_that_the_program_sets_for_the_streams_of_others(one: Command) -> None:
    """They are for its children; its own streams heed what it was started with."""
    other = 'import os\nos.environ["PYTHONUNBUFFERED"] = "1"\n'
    write(one.place / "changes.py", other)
    snapshot, _ = snap(one, "import changes\n" + STREAMS)
    assert one.restored(snapshot).splitlines()[1].endswith(" False False w")


def test_what_was_given_is_known_to_a_further_checkpoint(one: Command) -> None:
    """What this copy was started with is no change that its program has made."""
    source = """
import os
import libcriu_py
from libcriu_py.program import environment
os.environ["MINE"] = "1"
with getattr(libcriu_py, "check" "point")(engine="simulate"):
    pass
print(environment.changes().added, os.environ["OF"])
"""
    snapshot, _ = snap(one, source)
    assert one.restored(snapshot, env={"OF": "the start", "NEW": "x"}) == "{b'MINE': b'1'} the start\n"


def test_page_faults(one: Command) -> None:
    """An empty native copy has few, with those of its launcher."""
    snapshot, _ = snap(one, 'print("ready", flush=True)\n', "--engine", "native")
    env = {name: os.environ[name] for name in ("PATH", "HOME")}
    found = [count_family([str(launcher.find()), "--no-fallback", str(snapshot)], env).page_faults for _ in range(2)]
    assert min(found) <= MOST_PAGE_FAULTS
