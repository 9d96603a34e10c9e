"""Copies of an interpreter take Python's own command line, or the interpreter itself does, without a word."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING

import pytest

from libcriu_py.snapshot import launcher
from tests.system.python.conftest import SHOW, Warm, make, real, run

if TYPE_CHECKING:
    from pathlib import Path

IS_COPY = "import sys; print('colorsys' in sys.modules)"


@pytest.mark.parametrize(
    "options",
    [
        *([], ["-u"], ["-B"], ["-q"], ["-uB"], ["-b"], ["-E"], ["-I"], ["-s"], ["-O"], ["-OO"], ["-v", "-I"], ["-S"]),
        *(["-W", "error"], ["-Wignore", "-W", "error::UserWarning"], ["-W", "nonsense:::"], ["-X", "dev"]),
        *(["-Xfaulthandler"], ["-X", "tracemalloc"], ["-X", "tracemalloc=3"], ["-X", "pycache_prefix=/nowhere"]),
        *(["-X", "utf8"], ["-X", "importtime", "-I"], ["-X", "of_nobody=1"], ["-uBWignore"]),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("kind", ["script", "module", "command"])
def test_options(options: list[str], kind: str, warm: Warm, tmp_path: Path) -> None:
    """What a program sees of its interpreter is as in a new one, whatever its options are."""
    (tmp_path / "shows.py").write_text(SHOW, encoding="utf-8")
    program = {"script": ["shows.py"], "module": ["-m", "shows"], "command": ["-c", SHOW]}[kind]
    if kind == "module" and "-I" in options:
        program = ["-m", "json.tool", "--help"]
    expected = real(*options, *program, "-x", "a b", cwd=tmp_path)
    found = warm.start(*options, *program, "-x", "a b", cwd=tmp_path)
    if "-v" in options or "importtime" in options:  # their texts have times, and addresses
        assert found[:2] == expected[:2]
        assert len(found.errors.splitlines()) > 20
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("options", "is_copy"),
    [
        *(([], True), (["-u"], True), (["-B"], True), (["-q"], True), (["-W", "ignore"], True), (["-uBq"], True)),
        *((["-X", "faulthandler"], True), (["-X", "tracemalloc=3"], True), (["-X", "pycache_prefix=x"], True)),
        *((["-I"], False), (["-E"], False), (["-O"], False), (["-X", "dev"], False), (["-X", "tracemalloc=25"], False)),
        *((["-i"], False), (["-s"], False), (["-X", "importtime"], False)),
    ],
)
def test_which_options_a_copy_can_follow(options: list[str], is_copy: bool, warm: Warm) -> None:  # noqa: FBT001
    """Those that an interpreter reads only at its start have a new one."""
    done = warm.start(*options, "-c", IS_COPY)
    assert (done.status, done.output) == (0, f"{is_copy}\n")


@pytest.mark.parametrize("options", [["-O"], ["-I"], ["-X", "dev"], ["-sE", "-X", "of_nobody"]], ids=" ".join)
def test_options_of_the_dump(options: list[str], tmp_path: Path) -> None:
    """Options that were in force at the dump have to be given, and a copy is then what a new interpreter would be."""
    warm = make(tmp_path / "snap", "--", *options)
    assert warm.is_copy(*options, "-c", IS_COPY)
    assert not warm.is_copy("-c", IS_COPY)
    assert warm.start(*options, "-c", SHOW, "a") == real(*options, "-c", SHOW, "a")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["-V"], ["--version"], ["-h"], ["-Z"], ["-c"], ["-m"], ["-W"], ["-X"], ["--nonsense"], ["-x", "/dev/null"]),
        *(["-"], [], ["nosuch.py"], ["-m", "nosuch"], ["-m", "json"], ["/"], ["--", "nosuch.py"], ["-c", "1/0"]),
        *(["-c", "import sys; sys.exit(3)"], ["-c", "import sys; sys.exit('no')"], ["-c", "def"]),
        *(["-c", "raise KeyboardInterrupt"], ["-c", "import os; os.kill(os.getpid(), 15)"], ["-c", "exit(300)"]),
        *(["-c", "import os; os.abort()"], ["-Werror", "-c", "import warnings; warnings.warn('x')"]),
        ["-c", "import subprocess; print(subprocess._args_from_interpreter_flags())"],
        ["-BWonce", "-c", "import subprocess; print(subprocess._args_from_interpreter_flags())"],
    ],
    ids=" ".join,
)
def test_ends(arguments: list[str], warm: Warm, tmp_path: Path) -> None:
    """Status, output and messages are those of the interpreter."""
    assert warm.start(*arguments, cwd=tmp_path) == real(*arguments, cwd=tmp_path)


@pytest.mark.parametrize("arguments", [[], ["-"], ["-u", "-"]], ids=" ".join)
def test_program_on_standard_input(arguments: list[str], warm: Warm, tmp_path: Path) -> None:
    """A program comes through a pipe or from a file, and finds its input at the end."""
    path = tmp_path / "program"
    path.write_text(SHOW.replace("sys.stdin)", ")") + "print(sys.stdin.read(), sys.stdin.fileno())\n", encoding="utf-8")
    found = []
    for start in (warm.start, real):
        with path.open("rb") as file:
            found.append(start(*arguments, stdin=file.fileno()))
        reader = subprocess.Popen(["cat", path], stdout=subprocess.PIPE)
        assert reader.stdout is not None
        with reader.stdout as pipe:
            found.append(start(*arguments, stdin=pipe.fileno()))
        assert reader.wait() == 0
    assert found[0].status == 0
    assert found == [found[0]] * 4


def test_clocks(warm: Warm) -> None:
    """Monotonic clocks are those of the machine, which processes compare."""
    before = time.monotonic(), time.perf_counter()
    found = warm.start("-c", "import time; print(time.monotonic(), time.perf_counter(), time.process_time() < 1)")
    after = time.monotonic(), time.perf_counter()
    *readings, is_new = found.output.split()
    assert all(low <= float(one) <= high for low, one, high in zip(before, readings, after, strict=True))
    assert is_new == "True"


def test_closed_streams(warm: Warm) -> None:
    """Streams that are closed are None in Python, and a program that would be on one of them is empty."""
    code = "import os, sys; print(sys.stdin, sys.stdout, sys.stderr, file=open(os.environ['REPORT'], 'w'))"
    for closed in ("<&-", ">&-", "<&- >&- 2>&-"):
        for arguments in ([], ["-u", "-c", code], ["-c", code]):
            found = []
            for argv in ([launcher.path(), str(warm.snapshot)], [sys.executable]):
                report = warm.snapshot.parent / "report"
                report.write_text("", encoding="utf-8")
                env = {"REPORT": str(report)}
                done = run(["sh", "-c", f'exec "$0" "$@" {closed}', *argv, *arguments], env, stdin=None)
                found.append((done, report.read_text(encoding="utf-8")))
            assert found[0] == found[1]


@pytest.mark.parametrize(
    "variable",
    [
        *(
            "PYTHONHASHSEED=1",
            "PYTHONOPTIMIZE=1",
            "PYTHONDEVMODE=1",
            "PYTHONUTF8=1",
            "PYTHONPATH=/usr",
            "PYTHONINSPECT=1",
        ),
        *("PYTHONWARNINGS=error", "PYTHONNOUSERSITE=1", "PYTHONSAFEPATH=1", "PYTHONMALLOC=debug", "PYTHONVERBOSE=1"),
        *("PYTHONDONTWRITEBYTECODE=", "PYTHONUNBUFFERED=1", "PYTHONIOENCODING=latin-1", "PYTHONPYCACHEPREFIX=/nowhere"),
        *("PYTHONTRACEMALLOC=3", "PYTHONFAULTHANDLER=1", "LC_ALL=C.UTF-8", "LANG=de_DE.ISO-8859-1"),
        *("PYTHONTRACEMALLOC=x", "PYTHONINTMAXSTRDIGITS=5", "PYTHONINTMAXSTRDIGITS=700", "TZ=Asia/Tokyo"),
    ],
)
def test_variables(variable: str, warm: Warm) -> None:
    """A variable that Python reads at its start has its effect, without a word."""
    name, _, value = variable.partition("=")
    code = SHOW + "import tracemalloc, faulthandler\nprint(tracemalloc.is_tracing(), faulthandler.is_enabled())\n"
    code += f"print(hash('a') if {name!r} == 'PYTHONHASHSEED' else '', sys.getfilesystemencoding())\n"
    found, expected = (start("-c", code, env={name: value}) for start in (warm.start, real))
    assert found[:2] == expected[:2]
    assert found.errors == expected.errors or name == "PYTHONVERBOSE"


def test_modules_beside_the_program(warm: Warm, tmp_path: Path) -> None:
    """A module that the program would import from its own directory is imported from there, not from the snapshot."""
    program = "import colorsys; print(colorsys.__file__)"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    assert "colorsys" in warm.start("program.py", cwd=tmp_path).output
    (tmp_path / "colorsys.py").write_text("", encoding="utf-8")
    for arguments in (["program.py"], ["-c", program], ["-m", "program"]):
        assert warm.start(*arguments, cwd=tmp_path) == real(*arguments, cwd=tmp_path)
    assert warm.start(str(tmp_path / "program.py"), cwd="/") == real(str(tmp_path / "program.py"), cwd="/")
    (tmp_path / "link.py").symlink_to(tmp_path / "program.py")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.py").symlink_to(tmp_path / "program.py")
    assert str(tmp_path / "colorsys.py") in warm.start("elsewhere/link.py", cwd=tmp_path).output


def test_archive(warm: Warm, tmp_path: Path) -> None:
    """A program in an archive imports what is there."""
    path = tmp_path / "program.pyz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("__main__.py", "import colorsys; print(colorsys.__file__)")
        archive.writestr("colorsys.py", "")
    assert warm.start(str(path)) == real(str(path))


def test_own_modules_that_were_preloaded(tmp_path: Path) -> None:
    """A preloaded module is no obstacle in the directory that it is from."""
    (tmp_path / "of_project.py").write_text("import colorsys", encoding="utf-8")
    env = {"PYTHONPATH": str(tmp_path)}
    warm = make(tmp_path / "snap", "--preload", "of_project", env=env)
    done = warm.start("-c", "import sys; print('of_project' in sys.modules)", env=env, cwd=tmp_path)
    assert done == (0, "True\n", "")
    (tmp_path / "of_project.py").write_text("new = 1", encoding="utf-8")
    done = warm.start("-c", "import of_project; print(of_project.new)", env=env, cwd=tmp_path)
    assert (done.status, done.output) == (0, "1\n")


@pytest.mark.parametrize("number", [3, 47, 48, 200, 800])
def test_descriptors_have_their_numbers(number: int, warm: Warm, tmp_path: Path) -> None:
    """Also one that the snapshot itself uses."""
    path = tmp_path / "file"
    path.write_text("content", encoding="utf-8")
    code = f"import os; print(os.pread({number}, 99, 0), os.listdir('/proc/self/fd'))"
    shell = ["bash", "-c", f'exec {number}<"$0"; "$@"', str(path)]
    found = run([*shell, launcher.path(), "-q", str(warm.snapshot), "-c", code])
    assert found == run([*shell, sys.executable, "-c", code])
    assert (found.status, found.errors) == (0, "")


@pytest.mark.parametrize("path", ["lib", "{place}:lib", "{place}:", ":{place}", "{place}:{place}/lib"])
def test_relative_paths(path: str, tmp_path: Path) -> None:
    """Relative paths of PYTHONPATH are those of the working directory at the start."""
    env = {"PYTHONPATH": path.format(place=tmp_path)}
    warm = make(tmp_path / "snap", env=env)
    (tmp_path / "lib").mkdir()
    code = "import sys; print(sys.path)"
    assert warm.start("-c", code, env=env, cwd=tmp_path) == real("-c", code, env=env, cwd=tmp_path)


def test_new_files_of_the_start(tmp_path: Path) -> None:
    """What an interpreter would find at its start only now has a new one: sitecustomize, a path."""
    place = tmp_path / "library"
    place.mkdir()
    home = tmp_path / "home"
    env = {"PYTHONPATH": f"{place}:{tmp_path / 'later'}", "HOME": str(home)}
    warm = make(tmp_path / "snap", env=env)
    assert warm.is_copy("-c", IS_COPY, env=env)
    for made in ("library/sitecustomize.py", "later/late.py"):
        (tmp_path / made).parent.mkdir(exist_ok=True)
        (tmp_path / made).write_text("", encoding="utf-8")
        assert not warm.is_copy("-c", IS_COPY, env=env)
        path = tmp_path / made
        path.unlink()
        if path.parent.name == "later":
            shutil.rmtree(path.parent)
        assert warm.is_copy("-c", IS_COPY, env=env)


def test_words_of_the_command(tmp_path: Path) -> None:
    """--python stands alone or names an interpreter; a program is none of its options."""
    command = [sys.executable, "-m", "libcriu_py", "snapshot", "-o", str(tmp_path / "snap")]
    for words in (["--python", "-m", "json"], ["--python", "--", "program.py"]):
        done = subprocess.run([*command, *words], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (
            2,
            "libcriu-py snapshot: --python saves an interpreter, which gets its program at each start\n",
        )
    done = subprocess.run([*command, "--python", sys.executable], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Warm(tmp_path / "snap").start("-c", "print(1)") == (0, "1\n", "")
