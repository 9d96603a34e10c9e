"""
``libcriu-py snapshot``, ``inspect`` and ``check``, from the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.cli_start import LIBCRIU_PY, PROGRAM, TIMEOUT, make_snapshot

if TYPE_CHECKING:
    from pathlib import Path

LOADED = """\
import sys
if __name__ == "__main__":
    print(*(name in sys.modules for name in sys.argv[1:]))
"""


def libcriu_py(*args: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """
    Run the command with its output captured.
    """
    return subprocess.run(
        [*LIBCRIU_PY, *map(str, args)], check=False, capture_output=True, text=True, timeout=TIMEOUT, **settings
    )


def restored(snapshot: Path, *args: object, **settings: Any) -> str:
    """
    Run a snapshot, without a fallback, and return what it printed.
    """
    done = libcriu_py("run", "--no-fallback", snapshot, *args, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def inspect(snapshot: Path, *args: str) -> dict[str, Any]:
    """
    Return what inspect says of a snapshot.
    """
    done = libcriu_py("inspect", "--json", *args, snapshot)
    assert (done.returncode, done.stderr) == (0, "")
    contents: dict[str, Any] = json.loads(done.stdout)
    return contents


def write(path: Path, text: str) -> Path:
    """
    Write a file, and the directories above it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_script_is_stopped_before_it_starts(tmp_path: Path) -> None:
    """
    Its top-level imports are done once; nothing else of it has run.
    """
    script = write(
        tmp_path / "app.py",
        "import sys, helper\nfrom xml import dom\nif 0:\n    import colorsys\nprint(helper.when, sys.argv[1:])\n"
        + LOADED,
    )
    write(tmp_path / "helper.py", "import os\nwhen = os.getpid()\n")
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", script, "ignored")
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"snapshot: {tmp_path}/snap (")
    assert second.startswith("preloaded: ")
    assert third == f"run it: libcriu-py run {tmp_path}/snap [ARGUMENTS ...]"
    outputs = [restored(tmp_path / "snap", "helper", "xml.dom", "colorsys") for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[1] == "True True False"
    assert inspect(tmp_path / "snap")["preloaded"] == ["helper", "xml"]


def test_module_of_a_package(tmp_path: Path) -> None:
    """
    -m works with packages and their relative imports, also from another directory than that of the snapshot.
    """
    write(tmp_path / "pkg" / "__init__.py", "import os\npid = os.getpid()\n")
    write(tmp_path / "pkg" / "part.py", "")
    main = "import sys\nfrom . import part, pid\nprint(__package__, pid, __spec__.name, sys.argv, sys.path[0])\n"
    write(tmp_path / "pkg" / "__main__.py", main)
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", "-m", "pkg", cwd=tmp_path)
    assert done.returncode == 0
    (tmp_path / "elsewhere").mkdir()
    here = restored(tmp_path / "snap", "-x", cwd=tmp_path)
    there = restored(tmp_path / "snap", "-x", cwd=tmp_path / "elsewhere")
    assert here == there
    words = here.split()
    assert (words[0], *words[2:]) == ("pkg", "pkg.__main__", f"['{tmp_path}/pkg/__main__.py',", "'-x']", str(tmp_path))
    assert set(inspect(tmp_path / "snap")["preloaded"]) >= {"pkg"}


def test_installed_module_gets_the_working_directory_first(tmp_path: Path) -> None:
    """
    As with python -m, sys.path begins with the directory in which the copy is restored.
    """
    snapshot = make_snapshot(tmp_path / "snap", "-m", "json.tool")
    write(tmp_path / "in.json", '{"a":   1}')
    assert restored(snapshot, "--compact", "in.json", cwd=tmp_path) == '{"a":1}\n'


def test_command_on_path(tmp_path: Path) -> None:
    """
    A console script is found by its name and its entry point's module is imported beforehand.
    """
    tool = write(
        tmp_path / "bin" / "tool-x",
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom csv import reader\n" + LOADED,
    )
    tool.chmod(0o755)
    env = {**os.environ, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", "tool-x", env=env)
    assert done.returncode == 0
    assert inspect(tmp_path / "snap")["program"] == {"kind": "script", "value": str(tool)}
    assert restored(tmp_path / "snap", "csv", "colorsys") == "True False\n"


def test_preload_and_learn(tmp_path: Path) -> None:
    """
    --preload imports what it names, --learn what a trial run imported, wherever in the program that was.
    """
    source = "def work():\n    import colorsys\nimport sys\nif sys.argv[1:] == ['work', 'hard']: work()\n" + LOADED
    script = write(tmp_path / "app.py", source)
    done = libcriu_py(
        "snapshot",
        "-o",
        tmp_path / "snap",
        "--preload",
        "wave, sched",
        "--preload=fractions",
        "--learn",
        "work hard",
        script,
    )
    assert done.returncode == 0
    assert "trial run with work hard" in done.stderr
    assert (
        restored(tmp_path / "snap", "colorsys", "wave", "sched", "fractions", "plistlib")
        == "True True True True False\n"
    )
    assert {"colorsys", "wave", "sched", "fractions"} <= set(inspect(tmp_path / "snap")["preloaded"])


def test_trial_run_that_fails_is_reported_and_used(tmp_path: Path) -> None:
    """
    What it had imported until then is imported all the same.
    """
    script = write(
        tmp_path / "app.py", "import sys\nif sys.argv[1:] == ['x']:\n    import colorsys\n    sys.exit(3)\n" + LOADED
    )
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", "--learn", "x", script)
    assert done.returncode == 0
    assert "trial run ended with status 3" in done.stderr
    assert restored(tmp_path / "snap", "colorsys") == "True\n"


def test_import_that_fails_is_left_to_the_program(tmp_path: Path) -> None:
    """
    The snapshot is made, with a remark; the program fails as it would conventionally.
    """
    script = write(tmp_path / "app.py", "import no_such_module_x\n")
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", script)
    assert done.returncode == 0
    assert "not preloaded: no_such_module_x" in done.stderr
    run = libcriu_py("run", "--no-fallback", tmp_path / "snap")
    assert run.returncode == 1
    assert run.stderr == (
        "Traceback (most recent call last):\n"
        f'  File "{script}", line 1, in <module>\n'
        "    import no_such_module_x\n"
        "ModuleNotFoundError: No module named 'no_such_module_x'\n"
    )


def test_program_that_checkpoints_itself(tmp_path: Path) -> None:
    """
    It is run with its arguments, and its snapshot is where -o says, whatever directory it names itself.
    """
    source = (
        "import os, sys\nfrom libcriu_py import checkpoint\n"
        "with checkpoint('its-own') as snap:\n    warm = (os.getpid(), sys.argv[1:])\n"
        "print(warm == (os.getpid(), ['warm', 'up']), sys.argv[1:])\n"
    )
    script = write(tmp_path / "app.py", source)
    done = libcriu_py("snapshot", "-o", "snap", script, "warm", "up", cwd=tmp_path)
    assert done.returncode == 0
    assert "checkpoints itself" in done.stderr
    assert not (tmp_path / "its-own").exists()
    assert restored(tmp_path / "snap", "cold") == "True ['cold']\n"
    contents = inspect(tmp_path / "snap")
    assert (contents["kind"], contents["preloaded"]) == ("checkpointed itself", None)
    assert contents["arguments"] == ["warm", "up"]


@pytest.mark.parametrize(
    ("options", "source", "problem"),
    [
        ([], "from libcriu_py import checkpoint\n", "before its checkpoint()"),
        (["--self"], "print('nothing')\n", "leave out --self"),
        ([], "from libcriu_py import checkpoint\nraise SystemExit(4)\n", "ended with status 4"),
        ([], "from libcriu_py import checkpoint\nimport os\nos.kill(os.getpid(), 9)\n", "died of signal 9"),
        ([], "x = (\n", "cannot read the main module"),
        (["--preload", "no_such_module_x"], "", "cannot preload: no_such_module_x"),
    ],
)
def test_no_snapshot(tmp_path: Path, options: list[str], source: str, problem: str) -> None:
    """
    If none was made, the status is 1, the message says why and nothing is left.
    """
    script = write(tmp_path / "app.py", source)
    done = libcriu_py("snapshot", "-o", tmp_path / "snap", *options, script)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "no snapshot was made" in done.stderr
    assert not (tmp_path / "snap").exists()


def test_old_snapshot_is_kept_until_there_is_a_new_one(tmp_path: Path) -> None:
    """
    Without --replace nothing happens; with it the old one goes when the new one is complete, and only then.
    """
    script = write(tmp_path / "app.py", "print('one')\n")
    snapshot = make_snapshot(tmp_path / "snap", str(script))
    refused = libcriu_py("snapshot", "-o", snapshot, script)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    broken = write(tmp_path / "broken.py", "x = (\n")
    assert libcriu_py("snapshot", "-o", snapshot, "--replace", broken).returncode == 1
    assert restored(snapshot) == "one\n"
    other = write(tmp_path / "other.py", "print('two')\n")
    assert libcriu_py("snapshot", "-o", snapshot, "--replace", other).returncode == 0
    assert restored(snapshot) == "two\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["app.py", "broken.py", "other.py", "snap"]


def test_directory_that_is_no_snapshot_is_never_replaced(tmp_path: Path) -> None:
    """
    A mistyped -o does not cost anyone their files.
    """
    write(tmp_path / "precious" / "file", "")
    done = libcriu_py("snapshot", "-o", tmp_path / "precious", "--replace", PROGRAM)
    assert done.returncode == 1
    assert "is no snapshot" in done.stderr
    assert (tmp_path / "precious" / "file").exists()


def test_inspect_tells_what_is_in_a_snapshot(tmp_path: Path) -> None:
    """
    Origin, sizes, memory, processes, threads, files and sockets are there, for programs and for people.
    """
    source = (
        "import socket, threading, time\nfrom libcriu_py import checkpoint\n"
        "log = open('app.log', 'w+'); log.write('0123456789'); log.flush()\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "with checkpoint(): pass\n"
    )
    script = write(tmp_path / "app.py", source)
    made = libcriu_py("snapshot", "-o", tmp_path / "snap", script, cwd=tmp_path)
    assert made.returncode == 0
    contents = inspect(tmp_path / "snap", "--verify")
    (process,) = contents["processes"]
    assert len(process["threads"]) == 2
    assert process["saved"] > 1_000_000
    assert {"anonymous", "stack", "file, private"} <= set(process["memory"])
    assert [file["position"] for file in process["files"] if file["name"] == f"{tmp_path}/app.log"] == [10]
    assert {"stdin", "stdout", "stderr", "request", "images"} == {file["replaced"] for file in process["files"]} - {
        None
    }
    assert any(entry["name"].startswith("127.0.0.1:") for entry in process["sockets"])
    assert contents["size"]["total"] == sum(
        path.stat().st_size
        for path in (tmp_path / "snap").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    )
    assert contents["dump"]["pages_written"] > 0
    tree = libcriu_py("inspect", tmp_path / "snap")
    assert (tree.returncode, tree.stderr) == (0, "")
    for text in ("which checkpointed itself", "2 threads", "app.log, at 10", "127.0.0.1:", "fits this machine"):
        assert text in tree.stdout


def test_inspect_finds_changed_files(tmp_path: Path) -> None:
    """
    --verify names the file and makes the status 1.
    """
    snapshot = make_snapshot(tmp_path / "snap")
    image = snapshot / "images" / "inventory.img"
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    done = libcriu_py("inspect", "--verify", snapshot)
    assert done.returncode == 1
    assert "inventory.img has changed" in done.stdout


def test_inspect_refuses_other_directories(tmp_path: Path) -> None:
    """
    The message says what it is not and how to make one.
    """
    done = libcriu_py("inspect", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has no manifest.json; make one with" in done.stderr


def test_check_asks_criu() -> None:
    """
    Here, where these tests run, CRIU works.
    """
    done = libcriu_py("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "CRIU works here." in done.stdout


def test_check_without_criu(tmp_path: Path) -> None:
    """
    A missing program is one line on stderr and status 1.
    """
    done = libcriu_py("check", env={**os.environ, "LIBCRIU_PY_CRIU": f"{tmp_path}/none"})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/none" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_files_of_the_working_directory_do_not_hide_the_standard_library(tmp_path: Path) -> None:
    """
    A json.py where the command is given is not taken for the library's.
    """
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "program.py").write_text("import json\nprint(json.dumps([1]))\n")
    # As the console script of an installation does; python -m itself would have the working directory in front.
    code = "import sys; del sys.path[0]; from libcriu_py.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, "snapshot", "-o", "snap", "bin/program.py"]
    subprocess.run(argv, cwd=tmp_path, check=True, timeout=TIMEOUT)
    argv = [*LIBCRIU_PY, "run", "--no-fallback", str(tmp_path / "snap")]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=True, timeout=TIMEOUT)
    assert done.stdout == "[1]\n"
