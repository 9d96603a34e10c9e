"""The command lines of ``libcriu-py``."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies as st

from libcriu_py.cli import main, run, snapshot
from libcriu_py.cli._arguments import count, parse, size
from libcriu_py.cli._subcommands import SUBCOMMANDS
from libcriu_py.errors import SnapshotError
from libcriu_py.program.main import Program

if TYPE_CHECKING:
    from pathlib import Path

WORDS = st.sampled_from(
    [
        "-q",
        "--quiet",
        "--no-fallback",
        "--mode",
        "root",
        "rootless",
        "bad",
        "--mode=root",
        "-x",
        "--",
        "snap",
        "-",
        "",
        "-h",
    ]
)


@given(st.lists(WORDS, max_size=7))
def test_run_reads_its_options_as_argparse_would(words: list[str]) -> None:
    """The quick way of reading a command line gives what argparse gives, or leaves it to argparse."""
    own, rest = run.split(words)
    assert len(words) - len(own) - len(rest) in {0, 1}
    quick = run.quick_parse(own)
    if quick is not None:
        slow = parse(run.build_parser(), own)
        assert isinstance(slow, argparse.Namespace)
        assert quick == {name: value for name, value in vars(slow).items() if name != "arguments"}


@pytest.mark.parametrize(
    ("argv", "own", "rest"),
    [
        (["snap"], ["snap"], []),
        (["snap", "--", "--help"], ["snap"], ["--help"]),
        (["snap", "--help", "--", "x"], ["snap"], ["--help", "--", "x"]),
        (["snap", "--", "--", "x"], ["snap"], ["--", "x"]),
        (["-q", "snap", "-q"], ["-q", "snap"], ["-q"]),
        (["--mode", "root", "snap", ""], ["--mode", "root", "snap"], [""]),
        (["--mode=root", "snap", "a"], ["--mode=root", "snap"], ["a"]),
        (["--", "-dir", "a"], ["--", "-dir"], ["a"]),
        ([], [], []),
    ],
)
def test_run_leaves_everything_after_the_directory_to_the_program(
    argv: list[str], own: list[str], rest: list[str]
) -> None:
    """Only a first -- is dropped."""
    assert run.split(argv) == (own, rest)


@pytest.mark.parametrize(
    ("argv", "own", "rest"),
    [
        (["-o", "d", "s.py", "-o", "x"], ["-o", "d", "s.py"], ["-o", "x"]),
        (["-o", "d", "-m", "mod", "--flag"], ["-o", "d", "-m", "mod"], ["--flag"]),
        (["-o", "d", "-mmod", "--flag"], ["-o", "d", "-mmod"], ["--flag"]),
        (["--preload=a", "--learn", "-x", "s.py", "a"], ["--preload=a", "--learn", "-x", "s.py"], ["a"]),
        (["--self", "-o", "d", "--", "s.py", "a"], ["--self", "-o", "d", "--", "s.py"], ["a"]),
        (["-o", "d"], ["-o", "d"], []),
    ],
)
def test_snapshot_leaves_everything_after_the_program_to_it(argv: list[str], own: list[str], rest: list[str]) -> None:
    """Options of the program are not taken for ours."""
    assert snapshot.split(argv) == (own, rest)


def test_a_value_may_look_like_an_option() -> None:
    """A run of the program with a single option can be asked for."""
    own, rest = snapshot.split(["-o", "d", "--warm-up", "--version", "--learn", "-x", "--warm-up=", "s.py", "--learn"])
    options = snapshot.build_parser().parse_args(snapshot.with_values(own))
    assert (options.warm_up, options.learn, options.target) == (["--version", ""], ["-x"], "s.py")
    assert rest == ["--learn"]


@pytest.mark.parametrize(
    "words", [[name, "--help"] for name in SUBCOMMANDS] + [["--help"], ["--version"], ["-V"], [], ["help"]]
)
def test_help_is_printed_and_does_not_exit(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Every subcommand has examples and exit statuses in its help."""
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "libcriu-py" in out
    if len(words) == 2:
        assert "examples:\n" in out
        assert "exit status:\n" in out


@pytest.mark.parametrize(
    "words",
    [
        ["nosuch"],
        ["--nosuch"],
        ["run"],
        ["run", "--mode", "bad", "snap"],
        ["run", "--nosuch", "snap"],
        ["snapshot", "-o", "d"],
        ["snapshot", "-o", "d", "--preload", "a", "--learn", "x"],
        ["snapshot", "-o", "d", "--preload", "a", "--self"],
        ["snapshot", "-o", "d", "--preload", "a", "--warm-up", "x"],
        ["inspect"],
        ["inspect", "a", "b"],
        ["check", "x"],
        ["completion", "csh"],
        ["help", "nosuch"],
    ],
)
def test_wrong_command_line_is_reported_with_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The complaint names the command, goes to stderr, and nothing exits."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("libcriu-py")


@pytest.mark.parametrize(
    ("words", "variables", "status", "complaint"),
    [
        (["trigger", "99999999999999999999"], {}, 2, "argument PID: invalid pid value: '99999999999999999999'"),
        (["snapshot", "--learn", "'a", __file__], {}, 1, """--learn "'a" is no command line: no closing quotation"""),
        (["optimize", "--learn-pages", "'", "/nosuch"], {}, 1, "/nosuch is no snapshot"),
        (["snapshot", __file__], {"LIBCRIU_PY_ENGINE": "x"}, 2, "LIBCRIU_PY_ENGINE must be"),
        (["snapshot", __file__], {"LIBCRIU_PY_MODE": "x"}, 2, "LIBCRIU_PY_MODE must be"),
        (["doctor"], {"LIBCRIU_PY_CRIU_LIMIT": "x"}, 2, "LIBCRIU_PY_CRIU_LIMIT must be"),
    ],
)
def test_refusals_are_a_line(
    words: list[str],
    variables: dict[str, str],
    status: int,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be done is said in one line, without a traceback, before anything begins."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(words) == status
    out, err = capsys.readouterr()
    assert (out, complaint in err.splitlines()[-1]) == ("", True), err


@pytest.mark.parametrize(
    ("words", "guess"),
    [
        (["snapshto", "x"], "snapshot"),
        (["help", "inspetc"], "inspect"),
        (["snapshot", "-o", "d", "--preolad=x", "s.py"], "--preload"),
        (["run", "--nofallback", "snap"], "--no-fallback"),
    ],
)
def test_typos_are_answered_by_a_suggestion(words: list[str], guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of the complaint names what was probably meant."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1].endswith(f"; did you mean {guess}?")) == ("", True), err


def test_help_is_that_of_the_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    """`help SUB` prints what `SUB --help` does."""
    for name in SUBCOMMANDS:
        printed = []
        for words in (["help", name], [name, "--help"]):
            assert main(words) == 0
            printed.append(capsys.readouterr().out)
        assert printed[0] == printed[1]


def test_what_to_type_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments, a screen says which commands come first, and not all that there are."""
    assert main([]) == 0
    out = capsys.readouterr().out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("  libcriu-py ")] == [
        "doctor",
        "snapshot",
        "run",
    ]
    assert "libcriu-py help" in out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_covers_all_subcommands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script is one that the shell accepts, and knows every subcommand and its options."""
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    dashes = "-l " if shell == "fish" else "--"
    for word in (*SUBCOMMANDS, *(dashes + name for name in ("no-fallback", "preload", "verify"))):
        assert word in script
    if shell == "bash" or shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_completion_completes(capsys: pytest.CaptureFixture[str]) -> None:
    """bash, asked for the completions of a half-typed subcommand and option, gives them."""
    main(["completion", "bash"])
    ask = (
        capsys.readouterr().out
        + """
        complete_line() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            $(complete -p libcriu-py | sed 's/.*-F \\([^ ]*\\).*/\\1/') libcriu-py "${COMP_WORDS[COMP_CWORD]}" ""
            printf '%s\\n' "${COMPREPLY[@]}"
        }
        complete_line libcriu-py sna
        complete_line libcriu-py run --no
        """
    )
    done = subprocess.run(["/bin/bash"], input=ask, text=True, capture_output=True, check=True)
    assert done.stdout.split() == ["snapshot", "--no-fallback"]


def test_run_imports_little() -> None:
    """Reading a good command line costs no import that the restore itself does not need."""
    source = (
        "import sys; before = set(sys.modules)\n"
        "from libcriu_py.cli import run\n"
        "run.quick_parse(run.split(['-q', 'snap', 'a'])[0])\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-S", "-c", source], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "argparse",
        "json",
        "dataclasses",
        "inspect",
        "subprocess",
        "rich",
        "shtab",
        "importlib.metadata",
    }


def test_programs_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is a script with its absolute path, another word a command, and -m a module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("")
    assert snapshot.find_program(None, "app.py", sys.executable) == Program("script", f"{tmp_path}/app.py")
    assert snapshot.find_program("app", None, sys.executable) == Program("module", "app")
    assert snapshot.find_program(None, None, sys.executable) is None
    for missing in ("none.py", "./none", "nosuch-command-anywhere", "-"):
        with pytest.raises(SnapshotError):
            snapshot.find_program(None, missing, sys.executable)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456_789, "123 MB"), (2_500_000_000, "2.50 GB")],
)
def test_sizes_are_written_for_people(number: int, text: str) -> None:
    """Three digits and a unit are enough."""
    assert size(number) == text


def test_one_thing_is_no_plural() -> None:
    """A single module is no "1 modules"."""
    assert [count(number, "module") for number in (0, 1, 2)] == ["0 modules", "1 module", "2 modules"]
    assert [count(number, "copy", "copies") for number in (1, 2)] == ["1 copy", "2 copies"]


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("bin/report.py", "report.snap"),
        ("http.server", "http.server.snap"),
        ("black", "black.snap"),
        ("app.pyz", "app.snap"),
        ("a/package/", "package.snap"),
        ("tool.v2", "tool.v2.snap"),
        (None, "python.snap"),
    ],
)
def test_snapshots_are_named_after_their_programs(name: str | None, directory: str) -> None:
    """A program in a directory that was not named goes where one looks for it."""
    assert snapshot.default_directory(name) == directory
