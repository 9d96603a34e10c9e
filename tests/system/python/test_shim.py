"""`libcriu-py shim python`: the python of a virtual environment, or of a directory for PATH."""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import libcriu_py
from tests.system.leaks import observe
from tests.system.python.conftest import Done, run

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOW = """
import os, sys
print(sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.path, sys.orig_argv, sys.flags, sys.argv)
print(sys.version_info < (3, 11) or os.path.realpath(sys._base_executable))  # which was that of the environment
print(sorted({*os.environ} - {"_", "LIBCRIU_PY_AUTO"}))
with open("/proc/self/cmdline", "rb") as file:
    print(file.read())
"""
IS_COPY = "import sys; print('colorsys' in sys.modules)"
OFF = {"LIBCRIU_PY_AUTO": "0"}


def shim(*words: object) -> Done:
    """Run the command."""
    return run([sys.executable, "-m", "libcriu_py", "shim", *map(str, words)])


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Return a virtual environment that has this package."""
    path = tmp_path / "venv"
    venv.create(path, symlinks=True)
    (library,) = path.glob("lib/python3*/site-packages")
    places = [entry for entry in sys.path if entry.endswith("-packages")]
    ours = Path(libcriu_py.__file__).parents[1]
    (library / "ours.pth").write_text("\n".join([*places, str(ours)]), encoding="utf-8")
    return path


def links(directory: Path) -> dict[str, str]:
    """Return what the interpreters of a directory are links to."""
    return {path.name: os.readlink(path) if path.is_symlink() else "" for path in directory.glob("python*")}


def test_environment(environment: Path, tmp_path: Path) -> None:
    """Copies are of the environment, by whatever name they are started; and all can be put back as it was."""
    before = links(environment / "bin")
    shown = {name: run([str(environment / "bin" / name), "-c", SHOW, "a"]) for name in before}
    done = shim("python", "--into", environment, "--preload", "colorsys")
    assert (done.status, done.errors) == (0, "")
    assert done.output.endswith("preloaded: colorsys\n")
    for name, expected in shown.items():
        python = str(environment / "bin" / name)
        assert run([python, "-c", IS_COPY]) == (0, "True\n", "")
        assert run([python, "-c", SHOW, "a"]) == run([python, "-c", SHOW, "a"], OFF) == expected
        assert run([python, "-O", "-c", SHOW]) == run([python, "-O", "-c", SHOW], OFF)
        assert run([python, "-V"]).output == f"Python {sys.version.split()[0]}\n"
    listed = shim("--list", environment)
    assert listed == done
    assert shim("python", "--remove", environment) == (0, "", "")
    assert links(environment / "bin") == before
    assert {name: run([str(environment / "bin" / name), "-c", SHOW, "a"]) for name in before} == shown
    assert not (environment / "bin" / ".libcriu-py").exists()


def test_by_relative_paths_and_path(environment: Path) -> None:
    """The interpreter names itself as Python does, wherever it is found."""
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    here = environment / "bin"
    env: Mapping[str, str] = {"PATH": f"{here}:{os.environ['PATH']}"}
    for word, is_copy in (("python", True), ("./python3", True), ("../bin/python", False), (".//python", True)):
        code = "import sys; print(sys.executable, sys.prefix, sys.path)"
        found = run(["sh", "-c", f'exec {word} -c "$0"', code], env, cwd=here)
        assert found == run(["sh", "-c", f'exec {word} -c "$0"', code], {**env, **OFF}, cwd=here)
        assert run(["sh", "-c", f'exec {word} -c "$0"', IS_COPY], env, cwd=here) == (0, f"{is_copy}\n", "")
    script = environment / "bin" / "command"
    script.write_text(f"#!{here}/python\n{IS_COPY}\nprint(sys.argv, sys.executable)", encoding="utf-8")
    script.chmod(0o755)
    assert run([str(script), "-u"]) == (0, f"True\n['{script}', '-u'] {here}/python\n", "")


def test_children_are_copies_too(environment: Path) -> None:
    """Whatever is started by sys.executable is one, workers among them."""
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    code = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {IS_COPY!r}]))"
    assert run([str(environment / "bin" / "python"), "-c", code]) == (0, "True\n", "")


def test_copy_that_fails(environment: Path) -> None:
    """Where a copy cannot take over, the interpreter itself says what it always says, once."""
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    python = str(environment / "bin" / "python")
    env = {"PYTHONIOENCODING": "of_nobody"}
    found, expected = run([python, "-c", "pass"], env), run([python, "-c", "pass"], {**env, **OFF})
    assert found.status == expected.status == 1
    assert found.errors.splitlines()[:3] == expected.errors.splitlines()[:3]
    assert len(found.errors.splitlines()) == len(expected.errors.splitlines())


def test_warm_context_of_an_environment(environment: Path) -> None:
    """Workers are of the environment too, by either way."""
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    python = str(environment / "bin" / "python")
    code = (
        "import os, sys, libcriu_py, multiprocessing\nos.environ['XDG_CACHE_HOME'] = sys.argv[1]\n"
        "for context in (libcriu_py.warm_context(['colorsys']), multiprocessing.get_context('spawn')):\n"
        "    with context.Pool(1) as pool:\n"
        '        print(pool.apply(eval, (\'__import__("sys").prefix, "colorsys" in __import__("sys").modules\',)))\n'
    )
    done = run([python, "-c", code, str(environment / "cache")])
    assert done == (0, f"{(str(environment), True)}\n" * 2, "")


def test_variables_of_the_start(environment: Path) -> None:
    """Variables that code reads at the interpreter's start, as coverage does, have their effect."""
    (library,) = environment.glob("lib/python3*/site-packages")
    (library / "starts.pth").write_text("import os; os.environ.get('OF_START') and print('started')", encoding="utf-8")
    (library / "sitecustomize.py").write_text("import os\nFOUND = os.getenv('OF_SITE')\n", encoding="utf-8")
    done = shim("python", "--into", environment, "--preload", "colorsys")
    assert done.status == 0, done.errors
    python = str(environment / "bin" / "python")
    code = IS_COPY + "\nimport sitecustomize; print(sitecustomize.FOUND)"
    assert run([python, "-c", code]).output == "True\nNone\n"
    found = run([python, "-c", code], {"OF_START": "1"})
    assert found == run([python, "-c", code], {"OF_START": "1", **OFF})
    assert found.output.startswith("started\n")
    assert run([python, "-c", code], {"OF_SITE": "x"}).output == "False\nx\n"


def install_package(environment: Path, name: str) -> None:
    """Have the environment changed by an installation."""
    (library,) = environment.glob("lib/python3*/site-packages")
    (library / f"{name}-1.dist-info").mkdir()
    (library / f"{name}-1.dist-info" / "RECORD").write_text("", encoding="utf-8")


def wait_for_job(environment: Path) -> None:
    """Wait until the job that a stale start has left behind has ended."""
    with (environment / "bin" / ".libcriu-py" / "lock").open("wb") as file:
        deadline = time.monotonic() + 60
        while any("libcriu_py.auto.job" in command for command in observe().processes.values()):
            assert time.monotonic() < deadline
            select.poll().poll(20)
        fcntl.flock(file, fcntl.LOCK_EX)


def test_stale(environment: Path) -> None:
    """A package that was installed later has the interpreter itself start, until the command is repeated."""
    python = str(environment / "bin" / "python")
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    install_package(environment, "of_new")
    listed = shim("--list", environment)
    assert (listed.status, listed.errors) == (1, "")
    assert "has other packages than at the dump" in listed.output
    assert shim("python", "--into", environment).status == 0
    assert run([python, "-c", IS_COPY]) == (0, "True\n", "")


def test_stale_is_made_anew(environment: Path) -> None:
    """The first start after an installation is the interpreter's, and has the snapshot made anew, as it was made."""
    python = str(environment / "bin" / "python")
    assert shim("python", "--into", environment, "--preload", "colorsys", "--exit", "fast").status == 0
    install_package(environment, "of_new")
    for _ in range(3):
        assert run([python, "-c", IS_COPY]) == (0, "False\n", "")
    deadline = time.monotonic() + 60
    while run([python, "-c", IS_COPY]).output != "True\n":
        assert time.monotonic() < deadline
    wait_for_job(environment)
    listed = shim("--list", environment)
    assert (listed.status, listed.errors) == (0, "")
    assert run([python, "-O", "-c", IS_COPY]).output == "False\n"


def test_stale_without_its_module(environment: Path) -> None:
    """A snapshot that cannot be made anew is left alone for a while, and the interpreter goes on starting."""
    python = str(environment / "bin" / "python")
    (library,) = environment.glob("lib/python3*/site-packages")
    (library / "of_project.py").write_text("", encoding="utf-8")
    assert shim("python", "--into", environment, "--preload", "of_project").status == 0
    (library / "of_project.py").unlink()
    assert run([python, "-c", "print(1)"]) == (0, "1\n", "")
    refused = environment / "bin" / ".libcriu-py" / "refused"
    deadline = time.monotonic() + 60
    while not refused.exists() or not refused.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline
        select.poll().poll(20)
    wait_for_job(environment)
    assert "No module named 'of_project'" in refused.read_text(encoding="utf-8")
    run([python, "-c", "print(1)"])
    assert not any("libcriu-py" in command for command in observe().processes.values())
    (library / "of_project.py").write_text("", encoding="utf-8")
    os.utime(refused, (0, 0))
    while not run([python, "-c", "import sys; print('of_project' in sys.modules)"]).output.startswith("True"):
        assert time.monotonic() < deadline
    wait_for_job(environment)
    assert not refused.exists()


def test_damaged_snapshot(environment: Path) -> None:
    """Without a snapshot, or with one that cannot be used, the interpreter itself is what starts."""
    python = environment / "bin" / "python"
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    expected = run([str(python), "-c", SHOW], OFF)
    memory = environment / "bin" / ".libcriu-py" / "snap" / "images" / "memory.img"
    for path in (next(memory.parent.parent.rglob("memory.img")), next(memory.parent.parent.rglob("launch"))):
        path.write_bytes(b"")
        assert run([str(python), "-c", SHOW]) == expected
    assert shim("--list", environment).status == 1
    assert shim("python", "--remove", environment).status == 0
    assert run([str(python), "-c", SHOW]) == expected


def test_directory(tmp_path: Path) -> None:
    """A directory for PATH gets the interpreter of this process, which names itself by its own path."""
    place = tmp_path / "bin"
    place.mkdir()
    done = shim("python", "--into", place, "--preload", "colorsys")
    assert (done.status, done.errors) == (0, "")
    for name in ("python", "python3"):
        python = str(place / name)
        assert run([python, "-c", IS_COPY]) == (0, "True\n", "")
        for options in ([], ["-I"]):
            found = run([python, *options, "-c", SHOW, "a"])
            assert found == run([python, *options, "-c", SHOW, "a"], OFF)
            assert found.output.split()[:2] == [sys.executable, sys.prefix]
    assert shim("python", "--remove", place).status == 0
    assert os.listdir(place) == []


def test_refusals(environment: Path, tmp_path: Path) -> None:
    """What cannot be done leaves all as it was."""
    before = links(environment / "bin")
    done = shim("python", "--into", environment, "--preload", "nosuch")
    assert (done.status, done.output) == (1, "")
    assert done.errors == (
        f"libcriu-py: the snapshot of {environment}/bin/python cannot be made: cannot preload: nosuch: "
        "ModuleNotFoundError: No module named 'nosuch'\n"
    )
    assert links(environment / "bin") == before
    for words, status in (([], 2), (["--into", environment], 2), (["python", "black", "--into", environment], 2)):
        assert shim(*words).status == status
    for words in (["--list", environment], ["python", "--remove", environment]):
        done = shim(*words)
        assert (done.status, done.output) == (1, "")
        assert done.errors == f"libcriu-py: the python of {environment} is no launch script\n"
    own = tmp_path / "own"
    own.mkdir()
    (own / "python").write_bytes(Path(os.path.realpath(sys.executable)).read_bytes())
    (own / "python").chmod(0o755)
    done = shim("python", "--into", own, "--preload", "colorsys")
    assert done.status == 1
    assert "is the interpreter itself" in done.errors
    assert os.listdir(own) == ["python"]


def test_snapshots_of_programs_have_nothing_of_it(environment: Path, tmp_path: Path) -> None:
    """A program's snapshot is made by the interpreter itself."""
    assert shim("python", "--into", environment, "--preload", "colorsys").status == 0
    python = str(environment / "bin" / "python")
    (tmp_path / "program.py").write_text(f"{IS_COPY}\nprint(sys.executable)", encoding="utf-8")
    snap = str(tmp_path / "snap")
    done = run([python, "-m", "libcriu_py", "snapshot", "-o", snap, str(tmp_path / "program.py")])
    assert done.status == 0, done.errors
    assert run([python, "-m", "libcriu_py", "run", "--no-fallback", snap]) == (0, f"False\n{python}\n", "")
