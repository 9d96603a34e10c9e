"""Programs that `libcriu-py auto` starts: conventionally at first, then from a snapshot made in the background."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libcriu_py.snapshot import launcher
from tests.system.cli_command import write

WARM = "import sys\nwarm = 'decimal' in sys.modules\nimport decimal\n"
"""Beginning of a program that knows whether it is a copy: that has the module already."""
PATIENCE = 60
SETTLED = Path(__file__).with_name("settled.py")


class Cache:
    """A cache of automatic snapshots, and a directory for programs."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("LIBCRIU_PY_")}
        self.env["LIBCRIU_PY_CACHE"] = str(place / "cache")

    def command(self, *words: object) -> list[str | Path]:
        """Return the command that starts a program, and waits for what goes on in the background."""
        return [sys.executable, "-I", SETTLED, launcher.path(), "--auto-start", sys.executable, *map(str, words)]

    def start(self, *words: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Start a program."""
        return subprocess.run(
            self.command(*words),
            cwd=cwd or self.place,
            env={**self.env, **env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def manage(self, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run an option of `libcriu-py auto`."""
        return subprocess.run(
            [sys.executable, "-m", "libcriu_py", "auto", *map(str, words)],
            cwd=cwd or self.place,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def entries(self) -> list[Path]:
        """Return the places of programs."""
        found = (self.place / "cache" / "auto").glob("**/lock")
        return sorted(lock.parent for lock in found)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path)


def test_second_start_is_warm_and_says_nothing(cache: Cache) -> None:
    """Output, errors and status are those of the program, both times."""
    program = write(cache.place / "p.py", WARM + "print(warm, sys.argv[1:]); sys.stderr.write('err\\n'); sys.exit(3)\n")
    first, second = cache.start(program, "a", "-b"), cache.start(program, "a", "-b")
    assert (first.returncode, first.stdout, first.stderr) == (3, "False ['a', '-b']\n", "err\n")
    assert (second.returncode, second.stdout, second.stderr) == (3, "True ['a', '-b']\n", "err\n")
    shown = cache.manage("--show", program)
    assert "starts from it: 1\n" in shown.stdout
    assert "there is no snapshot yet" in shown.stdout


def test_first_start_shows_no_trace(cache: Cache) -> None:
    """What the program can see of itself is what it sees in a plain start."""
    names = "sorted(n for n in sys.modules if n not in %r)" % ["atexit"]
    code = f"import os, sys\nprint(sys.path, sys.flags, dict(os.environ), sorted(sys.path_importer_cache), {names})\n"
    program = write(cache.place / "p.py", code)
    for path in (None, str(cache.place / "other")):
        if path is not None:
            cache.env = {"PYTHONPATH": path, **cache.env}  # first: the order is seen, too
        plain = subprocess.run(
            [sys.executable, program], env=cache.env, cwd=cache.place, capture_output=True, check=True
        )
        assert cache.start(program).stdout.encode() == plain.stdout
        cache.manage("--rm")


def test_late_imports_are_learned_by_starts_and_by_copies(cache: Cache) -> None:
    """A copy that imports something more is the reason for another snapshot."""
    code = "import sys\nprint([name in sys.modules for name in ('decimal', 'wave')])\n"
    code += "for name in sys.argv[1:]: __import__(name)\n"
    program = write(cache.place / "p.py", code)
    outputs = [cache.start(program, *words).stdout for words in (["decimal"], ["decimal", "wave"], [])]
    assert outputs == ["[False, False]\n", "[True, False]\n", "[True, True]\n"]


CHANGES = {
    "own module": ("import own\nprint(own.VALUE)\n", "own.py", "VALUE = {}\n"),
    "file read by a module": ("import reads\nprint(reads.VALUE)\n", "data.txt", "{}\n"),
    "main module": (None, "p.py", WARM + "print({})\n"),
}
READS = "import pathlib\nVALUE = (pathlib.Path(__file__).parent / 'data.txt').read_text().strip()\n"


@pytest.mark.parametrize("kind", CHANGES)
def test_change_is_seen_at_once(cache: Cache, kind: str) -> None:
    """The start after the change has the new value, and is conventional; the one after that is warm again."""
    main, name, text = CHANGES[kind]
    write(cache.place / "reads.py", READS)
    changed = write(cache.place / name, text.format(1))
    program = changed if main is None else write(cache.place / "p.py", WARM + main + "print(warm)\n")
    outputs = [cache.start(program).stdout, cache.start(program).stdout]
    changed.write_text(text.format(22))
    outputs += [cache.start(program).stdout, cache.start(program).stdout]
    if main is None:
        assert outputs == ["1\n", "1\n", "22\n", "22\n"]
    else:
        assert outputs == ["1\nFalse\n", "1\nTrue\n", "22\nFalse\n", "22\nTrue\n"]


def test_file_that_was_looked_for_and_comes(cache: Cache) -> None:
    """A module that finds no configuration when it is imported finds it as soon as it is there."""
    looks = "import os\nVALUE = os.path.exists(os.path.join(os.path.dirname(__file__), 'config'))\n"
    write(cache.place / "looks.py", looks)
    program = write(cache.place / "p.py", WARM + "import looks\nprint(looks.VALUE, warm)\n")
    assert [cache.start(program).stdout for _ in range(2)] == ["False False\n", "False True\n"]
    write(cache.place / "config", "")
    assert [cache.start(program).stdout for _ in range(2)] == ["True False\n", "True True\n"]


def test_variable_that_was_read(cache: Cache) -> None:
    """A module that has read a variable when it was imported has the new value."""
    write(cache.place / "own.py", "import os\nVALUE = os.environ.get('AUTO_TEST')\n")
    program = write(cache.place / "p.py", WARM + "import own\nprint(own.VALUE, warm)\n")
    outputs = [cache.start(program, AUTO_TEST=value).stdout for value in "aabb"]
    assert outputs == ["a False\n", "a True\n", "b False\n", "b True\n"]


def test_module_that_looks_at_the_working_directory(cache: Cache) -> None:
    """Each directory has a snapshot of its own: `def lint(path=os.getcwd())` is fixed when it is imported."""
    write(cache.place / "own.py", "import os\ndef where(path=os.getcwd()):\n    return path\n")
    program = write(cache.place / "p.py", WARM + "import own\nprint(own.where(), warm)\n")
    places = [cache.place / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
    outputs = [cache.start(program, cwd=place).stdout for place in (*places, *places)]
    assert outputs == [f"{place} {warm}\n" for warm in (False, True) for place in places]


def test_program_that_prepares_an_import(cache: Cache) -> None:
    """What it does before, and the module then depends on, it does in each copy before the import, too."""
    write(cache.place / "own.py", "import os\nVALUE = os.environ.get('AUTO_TEST')\n")
    write(cache.place / "over.py", "from own import VALUE\n")
    write(cache.place / "place.py", "WHERE = 'beside'\n")
    write(cache.place / "lib" / "place.py", "WHERE = 'in lib'\n")
    code = "import os\nos.environ['AUTO_TEST'] = 'set'\nsys.path.insert(0, os.path.dirname(__file__) + '/lib')\n"
    program = write(cache.place / "p.py", WARM + code + "import over, place\nprint(over.VALUE, place.WHERE, warm)\n")
    assert [cache.start(program).stdout for _ in range(3)] == [f"set in lib {warm}\n" for warm in (False, True, True)]
    shown = cache.manage("--show", program).stdout
    assert "left out: own: it reads AUTO_TEST, which the program changes, when it is imported\n" in shown
    assert f"left out: place: the program has it from {cache.place}/lib/place.py" in shown
    # Without a start there is nothing to know that from.
    cache.manage("--rm", program)
    cache.manage("--build", program)
    assert cache.start(program).stdout == "set in lib False\n"


def test_variable_that_a_module_changes_itself(cache: Cache) -> None:
    """As aws does: that is no reason to leave the module to each copy."""
    write(cache.place / "own.py", "import os\nos.environ['AUTO_TEST'] = os.environ.get('AUTO_TEST', '') + 'x'\n")
    code = "import sys\nwarm = 'own' in sys.modules\nimport os, own\nprint(warm, os.environ['AUTO_TEST'])\n"
    program = write(cache.place / "p.py", code)
    assert [cache.start(program).stdout for _ in range(3)] == ["False x\n", "True x\n", "True x\n"]


def test_working_directory_of_a_module(cache: Cache) -> None:
    """`python -m` imports from there first, and so does a start of its snapshot."""
    command = ("-m", "json.tool", "--help")
    assert [cache.start(*command).returncode for _ in range(2)] == [0, 0]
    assert "starts from it: 1" in cache.manage("--show", *command).stdout
    write(cache.place / "argparse.py", "print('mine')\nraise SystemExit(7)\n")
    hidden = cache.start(*command)
    assert (hidden.returncode, hidden.stdout) == (7, "mine\n")
    (cache.place / "argparse.py").unlink()
    write(cache.place / "json" / "__init__.py", "")
    assert "No module named json.tool" in cache.start(*command).stderr


def test_module_that_starts_a_process(cache: Cache) -> None:
    """It is imported in each copy anew, and so are those that import it."""
    write(cache.place / "runs.py", "import subprocess\nVALUE = subprocess.check_output(['cat', 'now'], text=True)\n")
    write(cache.place / "over.py", "from runs import VALUE\n")
    program = write(cache.place / "p.py", WARM + "import over\nprint(over.VALUE, warm)\n")
    outputs = []
    for value in "abc":
        write(cache.place / "now", value)
        outputs.append(cache.start(program).stdout)
    assert outputs == ["a False\n", "b True\n", "c True\n"]
    assert "over: it does subprocess.Popen when it is imported" in cache.manage("--show", program).stdout


AT_IMPORT = {
    "print": "print('imported')",
    "bytes": "import sys\nsys.stderr.buffer.write(b'imported')",
    "warning": "import warnings\nwarnings.warn('old')",
    "warning to the main module": "import warnings\nwarnings.warn('old', DeprecationWarning, stacklevel=2)",
    "arguments": "import sys\nprint_later = '--debug' in sys.argv, sys.argv[1:]",
}


@pytest.mark.parametrize("kind", AT_IMPORT)
def test_module_whose_import_shows(cache: Cache, kind: str) -> None:
    """What it prints, and what it takes from the arguments, is so in each copy."""
    write(cache.place / "own.py", f"{AT_IMPORT[kind]}\n")
    program = write(cache.place / "p.py", "import decimal\nimport own\nprint(getattr(own, 'print_later', None))\n")
    plain = subprocess.run(
        [sys.executable, program, "--debug"], env=cache.env, capture_output=True, text=True, check=True
    )
    starts = [cache.start(program, word) for word in ("--debug", "--other", "--debug")]
    assert (starts[-1].stdout, starts[-1].stderr) == (plain.stdout, plain.stderr)
    assert "starts from it: 2" in cache.manage("--show", program).stdout


def test_relative_path_for_modules(cache: Cache) -> None:
    """`PYTHONPATH=lib` is another directory in another working directory, for each copy, too."""
    program = write(cache.place / "p.py", WARM + "import own\nprint(own.VALUE, warm)\n")
    for name in ("one", "two"):
        write(cache.place / name / "lib" / "own.py", f"VALUE = {name!r}\n")
    outputs = [cache.start(program, cwd=cache.place / name, PYTHONPATH="lib").stdout for name in ("one", "two") * 2]
    assert outputs == ["one False\n", "two False\n", "one True\n", "two True\n"]


def test_copy_that_crashes_is_the_last(cache: Cache) -> None:
    """Its snapshot is set aside, and the next start is conventional, until the program changes."""
    crash = WARM + "import os\nprint('begun', flush=True)\nif warm: os.kill(os.getpid(), 11)\nprint('done')\n"
    program = write(cache.place / "p.py", crash)
    outputs = [cache.start(program) for _ in range(4)]
    assert [done.returncode for done in outputs] == [0, -11, 0, 0]
    assert "a copy of its snapshot crashed within a second" in cache.manage("--show", program).stdout
    program.write_text(crash.replace("11", "0"))
    assert [cache.start(program).returncode for _ in range(3)] == [0, 0, 0]
    assert "starts from it: 2" in cache.manage("--show", program).stdout


def test_program_that_cannot_be_snapshotted(cache: Cache) -> None:
    """The reason is remembered, no job runs again, and a change is a new chance."""
    program = write(cache.place / "p.py", "from libcriu_py import checkpoint\nprint('ran')\n")
    for _ in range(2):
        assert cache.start(program).stdout == "ran\n"
    assert "the program takes its own checkpoint" in cache.manage("--show", program).stdout
    (entry,) = cache.entries()
    before = (entry / "job.log").stat().st_mtime_ns
    cache.start(program)
    assert (entry / "job.log").stat().st_mtime_ns == before
    program.write_text(WARM + "print(warm)\n")
    assert [cache.start(program).stdout for _ in range(2)] == ["False\n", "True\n"]


def test_many_first_starts_make_one_snapshot(cache: Cache) -> None:
    """Fifty at once: each prints what it should, and one job does the work."""
    program = write(cache.place / "p.py", WARM + "print('ran')\n")
    starts = [subprocess.Popen(cache.command(program), env=cache.env, stdout=subprocess.PIPE) for _ in range(50)]
    assert {start.communicate()[0] for start in starts} == {b"ran\n"}
    (entry,) = cache.entries()
    assert (entry / "state.json").read_text().count('"times": [') == 1
    assert len(cache.manage("--show", program).stdout.split("made ")) == 2
    assert "," not in (entry / "state.json").read_text().partition('"times": [')[2].partition("]")[0]


def test_a_warm_start_begins_no_interpreter(cache: Cache) -> None:
    """The launcher becomes the copy: no other program is on the way, but for those that watch the first copies."""
    program = write(cache.place / "p.py", WARM + "print(warm)\n")
    for _ in range(7):
        cache.start(program)
    log = cache.place / "strace"
    argv = ["strace", "-f", "-e", "trace=execve,fork,vfork,clone,clone3", "-o", str(log), *cache.command(program)[3:]]
    done = subprocess.run(argv, env=cache.env, capture_output=True, check=True)
    assert done.stdout == b"True\n"
    calls = [line for line in log.read_text().splitlines() if "(" in line and "exited" not in line]
    assert len(calls) == 1, calls


def test_what_is_not_python_or_not_there(cache: Cache) -> None:
    """Other programs are started as they are; what is missing has a shell's status."""
    assert cache.start("echo", "x").stdout == "x\n"
    missing = cache.start("no-such-program")
    assert (missing.returncode, missing.stdout) == (127, "")
    assert missing.stderr.startswith("libcriu-py: no-such-program was not found")
    argv = [launcher.path(), "--auto-start", "/nowhere/python", "-m", "json.tool"]
    assert subprocess.run(argv, env=cache.env, capture_output=True, check=False).returncode == 127
    assert cache.entries() == []


def test_script_that_chooses_the_interpreter(cache: Cache) -> None:
    """What is `python3` on PATH may be a shim of pyenv, which decides at each start."""
    chooser = write(cache.place / "bin" / "python3", f'#!/bin/sh\nexec {sys.executable} $CHOICE "$@"\n')
    program = write(cache.place / "p", "#!/usr/bin/env python3\nimport sys\nprint(sys.flags.optimize)\n")
    for path in (chooser, program):
        path.chmod(0o755)
    cache.env["PATH"] = f"{chooser.parent}:{cache.env['PATH']}"
    assert [cache.start(program, CHOICE=choice).stdout for choice in ("", "", "-O")] == ["0\n", "0\n", "1\n"]


def test_switched_off(cache: Cache) -> None:
    """Nothing is learned or made."""
    program = write(cache.place / "p.py", WARM + "print(warm)\n")
    assert [cache.start(program, LIBCRIU_PY_AUTO="0").stdout for _ in range(2)] == ["False\n"] * 2
    assert cache.entries() == []


def test_cache_of_another_user_is_left_alone(cache: Cache) -> None:
    """Neither read nor written to: root with a user's HOME must not trust what is there."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory of another user")
    program = write(cache.place / "p.py", WARM + "print(warm)\n")
    cache.start(program)
    (entry,) = cache.entries()
    os.chown(entry, 65534, 65534)
    before = sorted(path.name for path in entry.iterdir())
    assert cache.start(program).stdout == "False\n"
    assert sorted(path.name for path in entry.iterdir()) == before


def test_snapshot_that_is_made_ahead(cache: Cache) -> None:
    """As in the build of an image: with what a run imports, or what the source names."""
    program = write(cache.place / "p.py", WARM + "print(warm, len(sys.argv))\n")
    built = cache.manage("--build", program, "x")
    assert (built.returncode, built.stdout, built.stderr) == (0, "False 2\n", "")
    assert cache.start(program).stdout == "True 1\n"
    other = write(cache.place / "q.py", WARM + "print(warm)\n")
    assert cache.manage("--build", other).returncode == 0
    assert cache.start(other).stdout == "True\n"


def test_management(cache: Cache) -> None:
    """List, verify, collect, and remove."""
    program = write(cache.place / "p.py", WARM + "print(warm)\n")
    cache.start(program)
    cache.start(program)
    assert cache.manage("--list").stdout == f"{program}  1 from the snapshot, 1 conventional, ready\n"
    (facts,) = json.loads(cache.manage("--list", "--json").stdout)
    assert facts == json.loads(cache.manage("--show", "--json", program).stdout)
    assert (facts["value"], facts["hits"], len(facts["misses"]), facts["refused"]) == (str(program), 1, 1, None)
    assert facts["snapshot"].startswith(facts["place"])
    assert cache.manage("--verify").returncode == 0
    (entry,) = cache.entries()
    (memory,) = (entry / "snap").glob("memory*")
    memory.chmod(0o600)
    with memory.open("r+b") as file:
        file.seek(100_000)
        file.write(bytes(range(256)))
    damaged = cache.manage("--verify")
    assert damaged.returncode == 1
    assert "was set aside: " in damaged.stderr
    assert cache.start(program).stdout == "False\n"
    program.unlink()
    assert cache.manage("--gc").stdout == f"removed: {program}\n"
    assert cache.entries() == []
    for wrong in (["--show"], ["--build"], []):
        assert cache.manage(*wrong).returncode == 2


def test_job_waits_for_its_turn(cache: Cache) -> None:
    """While one works on an entry, another start does not."""
    own = write(cache.place / "own.py", "VALUE = 1\n")
    program = write(cache.place / "p.py", WARM + "import own\nprint(warm, own.VALUE)\n")
    cache.start(program)
    (entry,) = cache.entries()
    own.write_text("VALUE =  2\n")
    with open(entry / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cache.start(program).stdout == "False 2\n"
        assert cache.start(program).stdout == "False 2\n"
    assert [cache.start(program).stdout for _ in range(2)] == ["False 2\n", "True 2\n"]


def test_shims(cache: Cache) -> None:
    """A directory for PATH gets files that start commands so; they are listed, and removed."""
    python, shims = sys.executable, cache.place / "shims"
    tool = write(cache.place / "bin" / "tool", f"#!{python}\n{WARM}print(warm, sys.argv)\n")
    tool.chmod(0o755)
    cache.env["PATH"] = f"{shims}:{tool.parent}:{cache.env['PATH']}"

    def shim(*words: object) -> subprocess.CompletedProcess[str]:
        argv = [python, "-m", "libcriu_py", "shim", *map(str, words)]
        return subprocess.run(argv, env=cache.env, capture_output=True, text=True, check=False)

    for _ in range(2):  # the second finds the command behind the shim
        made = shim("tool", "--into", shims)
        assert (made.returncode, made.stdout, made.stderr) == (0, f"tool: {tool}\n", "")
    argv = [python, "-I", str(SETTLED), "tool", "x"]
    for warm in (False, True):
        done = subprocess.run(argv, env=cache.env, capture_output=True, text=True, check=True)
        assert done.stdout == f"{warm} ['{tool}', 'x']\n"
    assert shim("--list", shims).stdout == f"tool: {tool}\n"
    assert shim("ls", "--into", shims).stderr.endswith("is no Python program, and would not start any sooner\n")
    assert "there is no command no-such on PATH" in shim("no-such", "--into", shims).stderr
    write(shims / "other", "mine")
    write(tool.parent / "other", f"#!{python}\n").chmod(0o755)
    assert "exists and is no shim" in shim("other", "--into", shims).stderr
    assert shim("tool", "--remove", shims).returncode == 0
    assert sorted(path.name for path in shims.iterdir()) == ["other"]
    assert shim("tool", "--remove", shims).returncode == 1
