"""`run_main` against the interpreter: every program is started both ways, and nothing it can see or show may differ."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from libcriu_py.program.main import Program, parse_program

PACKAGE = str(Path(__file__).parents[3])

OURS = f"""\
import sys
sys.path.append({PACKAGE!r})
from libcriu_py.program.main import parse_program, run_main
sys.path.remove({PACKAGE!r})
run_main(*parse_program(sys.argv[1:]))
"""

REPORT = """\
import json, sys
main = sys.modules["__main__"]
seen = {name: type(value).__name__ for name, value in vars(main).items() if name.startswith("__")}
json.dump([sorted(seen.items()), __name__, globals().get("__file__"), sys.argv, sys.path], sys.stdout)
assert vars(main) is globals()
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a directory with programs of every kind."""
    (tmp_path / "ours.py").write_text(OURS)
    (tmp_path / "report.py").write_text(REPORT)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "link.py").symlink_to("../report.py")
    for package in ("pkg", "dir"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__main__.py").write_text(REPORT)
    (tmp_path / "pkg" / "__init__.py").write_text("")
    (tmp_path / "pkg" / "mod.py").write_text("from . import other\n" + REPORT)
    (tmp_path / "pkg" / "other.py").write_text("")
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        archive.writestr("__main__.py", REPORT)
    (tmp_path / "raises.py").write_text("def f():\n    raise ValueError('no')\ntry:\n    f()\nfinally:\n    pass\n")
    (tmp_path / "chained.py").write_text(
        "try:\n    1/0\nexcept ZeroDivisionError as e:\n    raise KeyError(1) from e\n"
    )
    (tmp_path / "syntax.py").write_text("x = (\n")
    (tmp_path / "interrupted.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nprint(ascii('\xe4'))\n")
    (tmp_path / "exits.py").write_text("import sys\nsys.exit(eval(sys.argv[1]))\n")
    (tmp_path / "hooked.py").write_text(
        "import sys, traceback\n"
        "def hook(kind, value, trace):\n"
        "    assert value.__traceback__ is trace is sys.last_traceback\n"
        "    print('hook', kind.__name__, traceback.extract_tb(trace))\n"
        "sys.excepthook = hook\n"
        "1/0\n"
    )
    (tmp_path / "at_exit.py").write_text(
        "import atexit, sys\n"
        "class Thing:\n"
        "    def __del__(self):\n"
        "        print('deleted')\n"
        "thing = Thing()\n"
        "atexit.register(lambda: print('exit', sys.modules['__main__'].thing is thing))\n"
    )
    (tmp_path / "pickles.py").write_text(
        "import pickle, multiprocessing\n"
        "class Thing: pass\n"
        "def work(x): return x + 1\n"
        "if __name__ == '__main__':\n"
        "    print(type(pickle.loads(pickle.dumps(Thing()))) is Thing)\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(work, [1, 2]))\n"
    )
    return tmp_path


def start(args: list[str], cwd: Path, stdin: str = "") -> tuple[int, str, str]:
    """Run an interpreter and return its status and output, with addresses made equal."""
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *args], cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, re.sub(r"0x[0-9a-f]+", "0x", done.stderr)


@pytest.mark.parametrize(
    "args",
    [
        ["report.py", "a", "--b"],
        ["./report.py"],
        ["sub/link.py"],
        ["dir", "x"],
        ["app.pyz", "x"],
        ["-m", "pkg", "x"],
        ["-mpkg.mod"],
        ["-c", REPORT, "x"],
        ["-"],
        [],
        ["-m", "nosuch"],
        ["-m", "pkg.nosuch"],
        ["nosuch.py"],
        ["sub"],
        ["raises.py"],
        ["chained.py"],
        ["-m", "raises"],
        ["-c", "def f():\n  1/0\nf()"],
        ["syntax.py"],
        ["-m", "syntax"],
        ["-c", "x = ("],
        ["interrupted.py"],
        ["-m", "interrupted"],
        ["latin.py"],
        ["exits.py", "3"],
        ["exits.py", "'message'"],
        ["exits.py", "None"],
        ["exits.py", "300"],
        ["hooked.py"],
        ["at_exit.py"],
        ["pickles.py"],
    ],
    ids=lambda args: " ".join(args)[:24].replace("\n", " ") or "nothing",
)
def test_program_behaves_as_started_by_python(here: Path, args: list[str]) -> None:
    """Status, output, traceback, sys.argv, sys.path and attributes of __main__ are those of a conventional start."""
    assert start(["ours.py", *args], here, REPORT) == start(args, here, REPORT)


def test_report_is_not_empty(here: Path) -> None:
    """The comparison above compares something."""
    status, out, err = start(["ours.py", "report.py", "x"], here)
    assert (status, err) == (0, "")
    names, name, file, argv, path = json.loads(out)
    assert ["__builtins__", "module"] in names
    assert (name, file, argv) == ("__main__", str(here / "report.py"), ["report.py", "x"])
    assert path[0] == str(here)


def test_second_program_replaces_the_path_of_the_first(here: Path) -> None:
    """sys.path holds the directory of one main program at a time, where the first one's was."""
    (here / "twice.py").write_text(OURS.replace("run_main(*", "\nimport os\n") + "")
    source = OURS.rpartition("run_main")[0] + (
        "from libcriu_py.program.main import Program\n"
        "run_main(Program('script', 'dir'), [])\n"
        "print()\n"
        "run_main(Program('script', 'report.py'), [])\n"
    )
    (here / "twice.py").write_text(source)
    status, out, err = start(["twice.py"], here)
    assert (status, err) == (0, "")
    first, second = (json.loads(line)[-1] for line in out.splitlines())
    assert first == [str(here / "dir"), *second[1:]]
    assert second[0] == str(here)


def test_arguments_are_put_into_the_list_that_is_there(here: Path) -> None:
    """Modules that hold on to sys.argv see those of the program."""
    (here / "in_place.py").write_text(
        f"import sys\nsys.path.append({PACKAGE!r})\n"
        "from libcriu_py.program.main import Program, run_main\n"
        "sys.kept = sys.argv\n"
        "run_main(Program('command', 'import sys; print(sys.kept is sys.argv, sys.argv)'), ['a'])\n"
    )
    assert start(["in_place.py"], here) == (0, "True ['-c', 'a']\n", "")


def test_isolated_interpreter_gets_no_directory_on_its_path(here: Path) -> None:
    """-I keeps the program's directory off sys.path, as in a conventional start."""
    ours = start(["-I", "ours.py", "report.py"], here)
    assert ours == start(["-I", "report.py"], here)


def test_changed_directories_are_looked_at_again(here: Path) -> None:
    """A module that appeared after another import from the same directory is found."""
    source = OURS.rpartition("run_main")[0] + (
        "import os\n"
        "try:\n    import late\nexcept ImportError: pass\n"
        "when = os.stat('.')\n"
        "open('late.py', 'w').write('print(1)')\n"
        "open('uses.py', 'w').write('import late')\n"
        "os.utime('.', ns=(when.st_atime_ns, when.st_mtime_ns))\n"
        "run_main(*parse_program(['uses.py']))\n"
    )
    (here / "appear.py").write_text(source)
    assert start(["appear.py"], here) == (0, "1\n", "")


@pytest.mark.parametrize("args", [["-m"], ["-c"], ["-x", "a.py"], ["--help"]])
def test_other_options_of_the_interpreter_are_refused(args: list[str]) -> None:
    """A restored interpreter has the options it was started with, and says so."""
    with pytest.raises(ValueError, match=r"option"):
        parse_program(args)


@pytest.mark.parametrize(
    ("program", "args"),
    [
        (Program("script", "a b.py"), ["a b.py"]),
        (Program("module", "m"), ["-m", "m"]),
        (Program("command", "pass"), ["-c", "pass"]),
        (Program("script", ""), []),
    ],
)
def test_arguments_name_the_same_program(program: Program, args: list[str]) -> None:
    """What a program puts on a conventional command line is read back as the program."""
    assert program.arguments() == args
    assert parse_program([*args]) == (program, [])
