"""``libcriu-py snapshot``, ``inspect`` and ``check``, from the command line."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.accounts import popen_as
from tests.system.cli_command import Command, write
from tests.system.cli_start import make_snapshot
from tests.system.conftest import MODES, NATIVE, by_criu

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.accounts import Account
    from tests.system.conftest import Mode

LOADED = """\
import sys
if __name__ == "__main__":
    print(*(name in sys.modules for name in sys.argv[1:]))
"""


def test_script_is_stopped_before_it_starts(command: Command) -> None:
    """Its top-level imports are done once; nothing else of it has run."""
    script = write(
        command.place / "app.py",
        "import sys, helper\nfrom xml import dom\nif 0:\n    import colorsys\nprint(helper.when, sys.argv[1:])\n"
        + LOADED,
    )
    write(command.place / "helper.py", "import os\nwhen = os.getpid()\n")
    done = command("snapshot", "-o", command.place / "snap", script, "ignored")
    assert done.returncode == 0
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"snapshot: {command.place}/snap (")
    assert second.startswith("preloaded: ")
    assert third == f"run it: libcriu-py run {command.place}/snap [ARGUMENTS ...]"
    outputs = [command.restored(command.place / "snap", "helper", "xml.dom", "colorsys") for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert outputs[0].splitlines()[1] == "True True False"
    assert command.inspect(command.place / "snap")["preloaded"] == ["helper", "xml"]


def test_directory_that_is_not_named(one: Command) -> None:
    """It has the program's name, in the working directory; LIBCRIU_PY_SNAPSHOT names another."""
    write(one.place / "bin" / "app.py", "print('a copy')\n")
    for env, name in (({}, "app.snap"), ({"LIBCRIU_PY_SNAPSHOT": "else/where"}, "else/where")):
        done = one("snapshot", "bin/app.py", cwd=one.place, env=env)
        assert f"run it: libcriu-py run {name} [" in done.stdout, done.stderr
        assert one.restored(one.place / name) == "a copy\n"


def test_what_is_printed_can_be_typed(
    mode_named: Callable[[str], Mode], directory_of: Callable[[Account], Path]
) -> None:
    """Also where the directory looks like an option, has a blank in its name, or the launch script is right here."""
    mode = mode_named(MODES[0])
    command = Command(mode, directory_of(mode.account))
    write(command.place / "app.py", "import sys\nprint(sys.argv[1:])\n")
    for snapshot in ("-dash", "a blank"):
        done = command("snapshot", f"-o{snapshot}", "--replace", "--script", "tool", "app.py", cwd=command.place)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines()[2:]:
            typed = line.partition(": ")[2].replace("[ARGUMENTS ...]", "one")
            run = typed.replace("libcriu-py ", f"{mode.account.python} -m libcriu_py ")
            shown = mode.run(["sh", "-c", run], cwd=command.place)
            assert shown.stdout == ("['one']\n" if "one" in typed else "[]\n"), shown.stderr


@pytest.mark.parametrize(
    ("library", "env", "told"),
    [
        ("libgomp.so.1", {}, True),
        ("libgomp.so.1", {"GOMP_SPINCOUNT": "3000"}, False),
        ("libgomp.so.1", {"OMP_WAIT_POLICY": "active"}, False),
        ("libm.so.6", {}, False),
    ],
)
def test_waiting_threads_of_openmp_are_told_of(
    mode_named: Callable[[str], Mode],
    directory_of: Callable[[Account], Path],
    library: str,
    env: dict[str, str],
    *,
    told: bool,
) -> None:
    """There is a tip for a program that has libgomp, unless somebody has chosen how its threads wait."""
    mode = mode_named(MODES[0])
    command = Command(mode, directory_of(mode.account))
    script = write(command.place / "app.py", f"import loader\n{LOADED}")
    write(command.place / "loader.py", f"import ctypes\nctypes.CDLL('{library}')\n")
    made = command("snapshot", "-o", command.place / "snap", script, env=env)
    assert made.returncode == 0
    assert ("GOMP_SPINCOUNT=3000" in made.stdout) is told


def test_module_of_a_package(command: Command) -> None:
    """-m works with packages and their relative imports, also from another directory than that of the snapshot."""
    write(command.place / "pkg" / "__init__.py", "import os\npid = os.getpid()\n")
    write(command.place / "pkg" / "part.py", "")
    main = "import sys\nfrom . import part, pid\nprint(__package__, pid, __spec__.name, sys.argv, sys.path[0])\n"
    write(command.place / "pkg" / "__main__.py", main)
    done = command("snapshot", "-o", command.place / "snap", "-m", "pkg", cwd=command.place)
    assert done.returncode == 0
    (command.place / "elsewhere").mkdir()
    here = command.restored(command.place / "snap", "-x", cwd=command.place)
    there = command.restored(command.place / "snap", "-x", cwd=command.place / "elsewhere")
    assert here == there
    words = here.split()
    place = str(command.place)
    assert (words[0], *words[2:]) == ("pkg", "pkg.__main__", f"['{place}/pkg/__main__.py',", "'-x']", place)
    assert set(command.inspect(command.place / "snap")["preloaded"]) >= {"pkg"}


def test_installed_module_gets_the_working_directory_first(command: Command) -> None:
    """As with python -m, sys.path begins with the directory in which the copy is restored."""
    snapshot = make_snapshot(command.mode, command.place / "snap", "-m", "json.tool")
    write(command.place / "in.json", '{"a":   1}')
    assert command.restored(snapshot, "--compact", "in.json", cwd=command.place) == '{"a":1}\n'


def test_command_on_path(command: Command) -> None:
    """A console script is found by its name and its entry point's module is imported beforehand."""
    tool = write(
        command.place / "bin" / "tool-x",
        f"#!{command.mode.account.python}\nimport sys\nsys.path.insert(0, {str(command.place)!r})\n"
        f"from csv import reader\n{LOADED}",
    )
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}:/usr/bin:/bin"}
    done = command("snapshot", "-o", command.place / "snap", "tool-x", env=env)
    assert done.returncode == 0
    assert command.inspect(command.place / "snap")["program"] == {"kind": "script", "value": str(tool)}
    assert command.restored(command.place / "snap", "csv", "colorsys") == "True False\n"


def test_preload_and_learn(command: Command) -> None:
    """--preload imports what it names, --learn what a trial run imported, wherever in the program that was."""
    source = "def work():\n    import colorsys\nimport sys\nif sys.argv[1:] == ['work', 'hard']: work()\n" + LOADED
    script = write(command.place / "app.py", source)
    done = command(
        "snapshot",
        "-o",
        command.place / "snap",
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
        command.restored(command.place / "snap", "colorsys", "wave", "sched", "fractions", "plistlib")
        == "True True True True False\n"
    )
    assert {"colorsys", "wave", "sched", "fractions"} <= set(command.inspect(command.place / "snap")["preloaded"])


def test_what_copies_import_late_is_told(one: Command) -> None:
    """A tip names it and --learn, which makes it go."""
    source = "import json\ndef work():\n    import json, colorsys, wave\n    print(colorsys.__name__)\nwork()\n"
    script = write(one.place / "app.py", source)
    made = one("snapshot", "-o", one.place / "snap", script)
    (tip,) = [line for line in made.stderr.splitlines() if "tip" in line]
    assert tip.startswith("libcriu-py: tip: the main module imports colorsys, wave only as it runs; --learn ")
    assert "tip" not in one("snapshot", "-o", one.place / "learnt", "--learn", "", script).stderr


def test_trial_run_that_fails_is_reported_and_used(command: Command) -> None:
    """What it had imported until then is imported all the same."""
    source = "import sys\nif sys.argv[1:] == ['x']:\n    import colorsys\n    sys.exit(3)\n" + LOADED
    script = write(command.place / "app.py", source)
    done = command("snapshot", "-o", command.place / "snap", "--learn", "x", script)
    assert done.returncode == 0
    assert "trial run ended with status 3" in done.stderr
    assert command.restored(command.place / "snap", "colorsys") == "True\n"


def test_import_that_fails_is_left_to_the_program(command: Command) -> None:
    """The snapshot is made, with a remark; the program fails as it would conventionally."""
    script = write(command.place / "app.py", "import no_such_module_x\n")
    done = command("snapshot", "-o", command.place / "snap", script)
    assert done.returncode == 0
    assert "not preloaded: no_such_module_x" in done.stderr
    run = command("run", "--no-fallback", command.place / "snap")
    assert run.returncode == 1
    assert run.stderr == (
        "Traceback (most recent call last):\n"
        f'  File "{script}", line 1, in <module>\n'
        "    import no_such_module_x\n"
        "ModuleNotFoundError: No module named 'no_such_module_x'\n"
    )


def test_program_that_checkpoints_itself(command: Command) -> None:
    """It is run with its arguments, and its snapshot is where -o says, whatever directory it names itself."""
    source = (
        "import os, sys\nfrom libcriu_py import checkpoint\n"
        "with checkpoint('its-own') as snap:\n    warm = sys.argv[1:]\n"
        "print(warm == ['warm', 'up'], sys.argv[1:])\n"
    )
    script = write(command.place / "app.py", source)
    done = command("snapshot", "-o", "snap", script, "warm", "up", cwd=command.place)
    assert done.returncode == 0
    assert "checkpoints itself" in done.stderr
    assert not (command.place / "its-own").exists()
    assert command.restored(command.place / "snap", "cold") == "True ['cold']\n"
    contents = command.inspect(command.place / "snap")
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
def test_no_snapshot(command: Command, options: list[str], source: str, problem: str) -> None:
    """If none was made, the status is 1, the message says why and nothing is left."""
    script = write(command.place / "app.py", source)
    done = command("snapshot", "-o", command.place / "snap", *options, script)
    assert done.returncode == 1
    assert problem in done.stderr
    assert "no snapshot was made" in done.stderr
    assert not (command.place / "snap").exists()


def complaints(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the lines on stderr that are no news of what is going on."""
    return [line for line in done.stderr.splitlines() if not line.startswith("libcriu-py: imported ")]


def test_place_where_nothing_can_be_made(command: Command) -> None:
    """One line says which, whether that shows before the program is started or only when its directory is made."""
    script = write(command.place / "app.py", "")
    done = command("snapshot", "-o", "/proc/snap", script)
    (line,) = complaints(done)
    assert done.returncode == 1
    assert "/proc/snap cannot be made" in line
    assert "place" in line
    for place, why in ((script / "snap", f": {script} is not a directory"), (script, " is not a directory; remove it")):
        done = command("snapshot", "-o", place, script)
        (line,) = complaints(done)
        assert (done.returncode, why in line) == (1, True), line


def test_launch_script_that_cannot_be_written(command: Command) -> None:
    """That is told before the program is started, and so there is no snapshot either."""
    script = write(command.place / "app.py", "")
    snapshot = command.place / "snap"
    for place in (snapshot, snapshot / "tool", command.place, "/nowhere/tool"):
        done = command("snapshot", "-o", snapshot, "--script", place, script)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"libcriu-py: the launch script {place} ")
        assert not snapshot.exists()


@pytest.mark.parametrize("size", ["4m", "64k"])
def test_full_disk(command: Command, size: str) -> None:
    """Where criu's images have no place, or not even its log has, one line says so, and nothing is left."""
    account = command.mode.account
    script = write(command.place / "app.py", "")
    disk = command.place / "disk"
    disk.mkdir()
    enter, change = ["unshare", "--mount"], [str(word) for word in command.mode.prefix]
    if account.is_self and account.uid:
        enter += ["--user", "--map-current-user", "--keep-caps"]
    fill = "head -c 65536 /dev/zero >fill" if size == "64k" else ":"
    mount = f'mount -t tmpfs -o size={size},mode=1777 none "$1" && cd "$1" && {fill}'
    line = f'{mount}; shift; "$@"; status=$?; ls >&2; exit $status'
    start = [*change, account.python, "-m", "libcriu_py", "snapshot", "-o", disk / "snap", script]
    argv = [*enter, "sh", "-c", line, "sh", disk, *start]
    done = subprocess.run([*map(str, argv)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    told, *left = complaints(done)
    assert "the disk is full" in told
    assert left == (["fill"] if size == "64k" else [])


def test_two_at_once_in_one_directory(command: Command) -> None:
    """One snapshot is made and whole; the other command says in one line that there is one."""
    script = write(command.place / "app.py", "print('whole')\n")
    python, snapshot = str(command.mode.account.python), str(command.place / "snap")
    argv = [python, "-m", "libcriu_py", "snapshot", "-o", snapshot, str(script)]
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [popen_as(command.mode.account, argv, env=command.mode.env, **settings) for _ in range(2)]
    output = [process.communicate(timeout=60) for process in both]
    ends = [process.returncode for process in both]
    done = [subprocess.CompletedProcess(argv, end, *texts) for end, texts in zip(ends, output, strict=True)]
    won, lost = sorted(done, key=lambda one: one.returncode)
    assert (won.returncode, complaints(won), lost.returncode, len(complaints(lost))) == (0, [], 1, 1), lost.stderr
    assert command.restored(command.place / "snap") == "whole\n"


def test_snapshot_where_ends_of_children_are_ignored(command: Command) -> None:
    """Programs inherit an ignored SIGCHLD from their starter, as from Perl programs; the one that is saved does not."""
    script = write(command.place / "app.py", "import signal\nprint(signal.getsignal(signal.SIGCHLD).name)\n")
    start = ["env", "--ignore-signal=CHLD", command.mode.account.python, "-m", "libcriu_py"]
    made = command.mode.run([*start, "snapshot", "-o", command.place / "snap", script])
    assert (made.returncode, "run it: " in made.stdout) == (0, True), made.stderr
    assert command.restored(command.place / "snap") == "SIG_DFL\n"


def test_old_snapshot_is_kept_until_there_is_a_new_one(command: Command) -> None:
    """Without --replace nothing happens; with it the old one goes when the new one is complete, and only then."""
    script = write(command.place / "app.py", "print('one')\n")
    snapshot = make_snapshot(command.mode, command.place / "snap", script)
    refused = command("snapshot", "-o", snapshot, script)
    assert refused.returncode == 1
    assert "--replace" in refused.stderr
    broken = write(command.place / "broken.py", "x = (\n")
    assert command("snapshot", "-o", snapshot, "--replace", broken).returncode == 1
    assert command.restored(snapshot) == "one\n"
    other = write(command.place / "other.py", "print('two')\n")
    assert command("snapshot", "-o", snapshot, "--replace", other).returncode == 0
    assert command.restored(snapshot) == "two\n"
    assert sorted(path.name for path in command.place.iterdir()) == ["app.py", "broken.py", "other.py", "snap"]


def test_directory_that_is_no_snapshot_is_never_replaced(command: Command) -> None:
    """A mistyped -o does not cost anyone their files."""
    write(command.place / "precious" / "file", "")
    done = command("snapshot", "-o", command.place / "precious", "--replace", write(command.place / "app.py", ""))
    assert done.returncode == 1
    assert "is not a snapshot" in done.stderr
    assert (command.place / "precious" / "file").exists()


def test_inspect_tells_what_is_in_a_snapshot(command: Command) -> None:
    """Origin, sizes, memory, processes, threads, files and sockets are there, for programs and for people."""
    server = "socket.socketpair()" if command.mode.name == NATIVE else "socket.create_server(('127.0.0.1', 0))"
    source = (
        "import socket, threading, time\nfrom libcriu_py import checkpoint\n"
        "log = open('app.log', 'w+'); log.write('0123456789'); log.flush()\n"
        f"server = {server}\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "with checkpoint(): pass\n"
    )
    script = write(command.place / "app.py", source)
    made = command("snapshot", "-o", command.place / "snap", script, cwd=command.place)
    assert made.returncode == 0
    contents = command.inspect(command.place / "snap", "--verify")
    (process,) = contents["processes"]
    assert len(process["threads"]) == 2
    assert process["saved"] > 1_000_000
    assert {"anonymous", "stack", "file, private"} <= set(process["memory"])
    assert [file["position"] for file in process["files"] if file["name"] == f"{command.place}/app.log"] == [10]
    replaced = {file["replaced"] for file in process["files"]} - {None}
    if command.mode.name == NATIVE:
        assert replaced == {"request"}
        assert [entry["kind"] for entry in process["sockets"]] == ["unix-socket"] * 2
    else:
        assert replaced == {"stdin", "stdout", "stderr", "request", "images"}
        assert any(entry["name"].startswith("127.0.0.1:") for entry in process["sockets"])
    assert contents["size"]["total"] == sum(
        path.stat().st_size
        for path in (command.place / "snap").rglob("*")
        if path.is_file() and path.name not in {"launch", "manifest.json"}
    )
    assert contents["dump"]["pages_written"] > 0
    tree = command("inspect", command.place / "snap")
    assert (tree.returncode, tree.stderr) == (0, "")
    socket = "unix-socket" if command.mode.name == NATIVE else "127.0.0.1:"
    for text in ("which checkpointed itself", "2 threads", "app.log, at 10", socket, "fits this machine"):
        assert text in tree.stdout


def test_temporary_files_of_a_module_are_told(command: Command) -> None:
    """What the first copy will remove from under all others: once, with what to do; what is gone already is not."""
    lines = ("import tempfile", "directory = tempfile.TemporaryDirectory()", "file = tempfile.NamedTemporaryFile()")
    gone = ("tempfile.TemporaryDirectory().cleanup()", "tempfile.NamedTemporaryFile().close()")
    kept = ("stays = tempfile.NamedTemporaryFile(delete=False)", "import os; os.unlink(stays.name); stays.close()")
    write(command.place / "module.py", "\n".join((*lines, *gone, *kept)))
    app = write(command.place / "app.py", "import module, os\nprint(module.directory.name, module.file.name)\n")
    done = command("snapshot", "-o", command.place / "snap", app, check=True)
    directory, file = command.restored(command.place / "snap").split()
    (told,) = [line for line in done.stderr.splitlines() if "temporary" in line]
    assert told == (
        "libcriu-py: the first copy that ends removes, from under all others, "
        f"the temporary directory {directory}, the temporary file {file}; "
        "create them in copies: in main, or in after_restore"
    )
    assert not (command.place / directory).exists()
    assert command("run", "--no-fallback", command.place / "snap").returncode != 0
    report = command("preflight", "-v", app)
    assert "fine               temporary directory: " in report.stdout
    assert "fine               temporary file: " in report.stdout
    assert "from under all others" not in report.stderr


def test_inspect_finds_changed_files(command: Command) -> None:
    """--verify names the file and makes the status 1."""
    snapshot = make_snapshot(command.mode, command.place / "snap", write(command.place / "app.py", ""))
    image = snapshot / ("memory.img" if command.mode.name == NATIVE else "images/inventory.img")
    image.chmod(0o600)
    data = bytearray(image.read_bytes())
    data[-1] ^= 1
    image.write_bytes(data)
    done = command("inspect", "--verify", snapshot)
    assert done.returncode == 1
    assert f"{image.name} is damaged: its checksum differs" in done.stdout


def test_inspect_refuses_other_directories(command: Command) -> None:
    """The message says what it is not and how to make one."""
    done = command("inspect", command.place)
    assert (done.returncode, done.stdout) == (1, "")
    assert "it has no manifest.json; make one with" in done.stderr


@by_criu
def test_check_asks_criu(command: Command) -> None:
    """CRIU by itself works for root and with file capabilities; others are told where to ask about a namespace."""
    done = command("check")
    if command.mode.name == "rootless":
        assert done.returncode == 1
        assert "CAP_CHECKPOINT_RESTORE" in done.stderr
        assert "libcriu-py doctor" in done.stderr
    else:
        assert (done.returncode, done.stderr) == (0, "")
        assert "CRIU works here." in done.stdout
        assert "optional features: " in done.stdout
    asked = command("check", "--json")
    found = json.loads(asked.stdout)
    assert (asked.returncode, asked.stderr, found["works"]) == (done.returncode, "", done.returncode == 0)
    assert (found["features"] is None, found["why_not"] is None) == (not found["works"], found["works"])
    assert f"criu {found['version']}: {found['criu']}\n" in done.stdout


def test_check_without_criu(command: Command) -> None:
    """A missing program is named on stderr, with status 1."""
    done = command("check", env={"LIBCRIU_PY_CRIU": f"{command.place}/none"})
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{command.place}/none" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_check_of_a_program_that_is_no_criu(one: Command) -> None:
    """Libcriu's own words stay off the terminal; ours say what there is to say."""
    done = one("check", env={"LIBCRIU_PY_CRIU": "/bin/false"})
    assert (done.returncode, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first.startswith("libcriu-py: <Criu /bin/false> did not answer")
    assert "libcriu-py doctor" in second


def test_files_of_the_working_directory_do_not_hide_the_standard_library(command: Command) -> None:
    """A json.py where the command is given is not taken for the library's."""
    (command.place / "json.py").write_text("raise SystemExit('the wrong json')\n")
    (command.place / "bin").mkdir()
    (command.place / "bin" / "program.py").write_text("import json\nprint(json.dumps([1]))\n")
    # As the console script of an installation does; python -m itself would have the working directory in front.
    code = "import sys; del sys.path[0]; from libcriu_py.cli import main; sys.exit(main(sys.argv[1:]))"
    command.mode.run(
        [command.mode.account.python, "-c", code, "snapshot", "-o", "snap", "bin/program.py"],
        cwd=command.place,
        check=True,
    )
    assert command.restored(command.place / "snap", cwd="/") == "[1]\n"
