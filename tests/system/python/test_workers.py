"""Workers that are copies of an interpreter: multiprocessing, concurrent.futures, loky, execnet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import execnet
import pytest

import libcriu_py
from libcriu_py.errors import CheckpointError
from tests.system.python import of_workers
from tests.system.python.conftest import SHOW, Done, run

PRELOAD = ["colorsys"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Have snapshots in a cache of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def python(cache: Any) -> str:
    """Return the path of an interpreter that has `colorsys`."""
    return libcriu_py.executable(PRELOAD)


@pytest.mark.parametrize("check", of_workers.CHECKS)
def test_context(check: str) -> None:
    """What multiprocessing and concurrent.futures do by copies; each in a process of its own, which has the tracker."""
    assert run([sys.executable, of_workers.__file__, check]) == (0, "", "")


PROGRAM = """
import os, sys
import libcriu_py

ctx = libcriu_py.warm_context(["colorsys"])

class Own(ctx.Process):
    def run(self):
        print("own", "colorsys" in sys.modules, __name__, self.name, flush=True)

def work(number):
    return number, "colorsys" in sys.modules, __name__, sys.argv

if __name__ == "__main__":
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=ctx) as pool:
        print(pool.submit(work, 3).result(), flush=True)
    process = Own(name="mine")
    process.start()
    process.join()
    print(process.exitcode, ctx.get_start_method())
"""


@pytest.mark.parametrize("options", [[], ["-O"], ["-B", "-W", "ignore"], ["-I"], ["-X", "dev"]], ids=" ".join)
def test_program_of_its_own(options: list[str], tmp_path: Path) -> None:
    """A program's main module is there in its workers, whatever the options of Python are, and classes of processes."""
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, encoding="utf-8")
    done = run([sys.executable, *options, str(path), "a"])
    assert done == Done(0, f"(3, True, '__mp_main__', ['{path}', 'a'])\nown True __mp_main__ mine\n0 spawn\n", "")


OWN = """
import sys
import libcriu_py

def work(number):
    import own
    return number, "own" in BEFORE, own.VALUE

BEFORE = [*sys.modules]

if __name__ == "__main__":
    with libcriu_py.warm_context(["colorsys", "own"]).Pool(1) as pool:
        print(pool.apply(work, (1,)), pool.apply(eval, ("'colorsys' in __import__('sys').modules",)))
"""


def test_modules_beside_the_program(tmp_path: Path) -> None:
    """Modules of the program's own can be preloaded, are not stale, and are not hidden by what was preloaded."""
    program = tmp_path / "program.py"
    program.write_text(OWN, encoding="utf-8")
    (tmp_path / "own.py").write_text("VALUE = 1", encoding="utf-8")
    assert run([sys.executable, str(program)], cwd="/") == (0, "(1, True, 1) True\n", "")
    (tmp_path / "own.py").write_text("VALUE = 'two'", encoding="utf-8")
    assert run([sys.executable, str(program)], cwd="/") == (0, "(1, True, 'two') True\n", "")
    (tmp_path / "colorsys.py").write_text("VALUE = 1", encoding="utf-8")
    code = "from colorsys import VALUE\n" + OWN
    program.write_text(code, encoding="utf-8")
    assert run([sys.executable, str(program)], cwd="/") == (0, "(1, False, 'two') True\n", "")


def test_module_that_cannot_be_imported() -> None:
    """Who asks for it is told, before any worker starts."""
    with pytest.raises(CheckpointError, match="No module named 'nosuch'"):
        libcriu_py.warm_context(["nosuch"])


def test_executable(python: str) -> None:
    """It takes what Python takes, and is the interpreter of this process in all that a program sees."""
    assert run([python, "-c", "import sys; print('colorsys' in sys.modules)"]) == (0, "True\n", "")
    for arguments in (["-c", SHOW, "a"], ["-u", "-c", SHOW], ["-I", "-c", SHOW], ["-V"]):
        assert run([python, *arguments]) == run([sys.executable, *arguments])


def test_link_to_an_executable(python: str, tmp_path: Path) -> None:
    """A link to it is one too, wherever it is."""
    (tmp_path / "warm").symlink_to(python)
    assert run(["./warm", "-c", "import sys; print('colorsys' in sys.modules)"], cwd=tmp_path) == (0, "True\n", "")


def test_executable_is_made_anew(python: str, tmp_path: Path) -> None:
    """There is one for each list of modules and each environment; a stale one is replaced, and a fit one stays."""
    made = Path(python).parent / "snap" / "launch"
    inode = made.stat().st_ino
    assert libcriu_py.executable(PRELOAD) == python
    assert made.stat().st_ino == inode
    (tmp_path / "of_project.py").write_text("X = 1", encoding="utf-8")
    code = "import libcriu_py; print(libcriu_py.executable(['of_project']))"
    env = {"PYTHONPATH": str(tmp_path)}
    path = run([sys.executable, "-c", code], env).output.strip()
    assert path != python
    assert run([path, "-c", "import sys; print(sys.modules['of_project'].X)"], env).output == "1\n"
    (tmp_path / "of_project.py").write_text("X = 'two'", encoding="utf-8")
    assert run([path, "-c", "import of_project; print(of_project.X)"], env) == (0, "two\n", "")
    assert run([sys.executable, "-c", code], env).output.strip() == path
    assert run([path, "-c", "import sys; print(sys.modules['of_project'].X)"], env) == (0, "two\n", "")
    assert run([path, "-c", "import of_project"]).status == 1  # without the variable


def test_one_makes_it(tmp_path: Path) -> None:
    """Of many that want it at once, one makes it."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    code = "import libcriu_py, os; p = libcriu_py.executable(); print(os.stat(p[:-6] + 'snap/launch').st_ino)"
    started = [subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert [process.returncode for process in started] == [0] * 4


def test_shebang(python: str, tmp_path: Path) -> None:
    """A script can name it as its interpreter."""
    script = tmp_path / "script"
    script.write_text(f"#!{python}\nimport sys\nprint('colorsys' in sys.modules, sys.argv)", encoding="utf-8")
    script.chmod(0o755)
    assert run([str(script), "-x"]) == (0, f"True ['{script}', '-x']\n", "")


def test_execnet(python: str) -> None:
    """A gateway of execnet is a copy."""
    group = execnet.Group()
    gateway = group.makegateway(f"popen//python={python}")
    try:
        channel = gateway.remote_exec("import sys; channel.send(['colorsys' in sys.modules, channel.receive()])")
        channel.send("hello")
        assert channel.receive(60) == [True, "hello"]
    finally:
        group.terminate(10)


LOKY = """
import sys, libcriu_py
sys.executable = libcriu_py.executable(["colorsys"])
import loky

def work(number):
    return number, "colorsys" in sys.modules

if __name__ == "__main__":
    with loky.ProcessPoolExecutor(2) as pool:
        print(list(pool.map(work, range(3))))
"""


def test_loky(python: str, tmp_path: Path) -> None:
    """Workers of loky, which starts sys.executable, are copies."""
    path = tmp_path / "program.py"
    path.write_text(LOKY, encoding="utf-8")
    assert run([sys.executable, str(path)]) == (0, "[(0, True), (1, True), (2, True)]\n", "")


def test_kernelspec_of_a_child(python: str) -> None:
    """What is started with pipes, as kernels are, has them; and it ends when it is told to."""
    code = "import sys; print('colorsys' in sys.modules, flush=True); sys.stdin.read()"
    with subprocess.Popen([python, "-m", "code"], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        output, _ = process.communicate(f"{code.partition('; sys.stdin')[0]}\n", 60)
    assert output.startswith(">>> True\n")
    with subprocess.Popen([python, "-c", code], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
