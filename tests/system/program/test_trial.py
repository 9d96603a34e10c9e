"""Trial runs of programs that never end, by what `snapshot` makes of them."""

from __future__ import annotations

import shlex
import socket

import pytest

from tests.system.cli_command import Command, write

MODULES = "('http.server', 'wave', 'colorsys', 'sched')"
REPORTING = f"""
import sys
if sys.argv[1:] == ["report"]:
    print(*(name in sys.modules for name in {MODULES}))
    sys.exit()
"""
HTTP = """
def main():
    import http.server
    http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
main()
"""
FORKING = """
import os, signal, socket
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for late in ("wave", "colorsys"):
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        __import__(late)
        listener.accept()
signal.pause()
"""
ASYNC = """
def main():
    import asyncio
    async def serve():
        import sched
        server = await asyncio.start_unix_server(lambda *_: None, sys.argv[1])
        await server.serve_forever()
    asyncio.run(serve())
main()
"""
SLEEPING = (
    "import subprocess, time, wave\nsubprocess.Popen(['sh', '-c', 'trap \"\" TERM; sleep 1000'])\ntime.sleep(1000)\n"
)


@pytest.fixture(name="port")
def port_fixture() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number: int = server.getsockname()[1]
        return number


def learnt(command: Command, source: str, until: object, *words: object) -> str:
    """Take a snapshot by a trial run, and return what a copy says of its modules."""
    script = write(command.place / "app.py", REPORTING + source)
    snapshot = command.place / "snap"
    done = command("snapshot", "--replace", "-o", snapshot, "--learn-until", until, *words, script)
    assert done.returncode == 0, done.stderr
    assert "ended with" not in done.stderr
    assert "Traceback" not in done.stderr
    return command.restored(snapshot, "report")


def test_until_it_listens(command: Command, port: int) -> None:
    """What a server had imported in functions is in its copies, and its port is free again."""
    assert learnt(command, HTTP, port, "--learn", port) == "True False False False\n"
    with socket.create_server(("127.0.0.1", port), reuse_port=False):
        pass


def test_processes_that_it_forks(one: Command, port: int) -> None:
    """What its workers import counts, too, and they end with it, whatever they ignore."""
    assert learnt(one, FORKING, port, "--learn", port) == "False True True False\n"


def test_until_a_path_exists(one: Command) -> None:
    """A socket, here, which the program removes if it can; one that is there already is refused."""
    path = one.place / "socket"
    assert learnt(one, ASYNC, path, "--learn", shlex.quote(str(path))) == "False False False True\n"
    path.touch()
    done = one("snapshot", "-o", one.place / "again", "--learn-until", path, one.place / "app.py", path)
    assert (done.returncode, f"{path} exists before the trial run" in done.stderr) == (1, True), done.stderr


def test_until_seconds_have_passed(one: Command) -> None:
    """What it has started goes with it."""
    assert learnt(one, SLEEPING, "0.5s") == "False True False False\n"


def test_program_that_ends_before(one: Command, port: int) -> None:
    """It is told, and what it imported is used."""
    script = write(one.place / "app.py", "def main():\n    import wave\nmain()\n")
    done = one("snapshot", "-o", one.place / "snap", "--learn-until", port, script)
    assert done.returncode == 0
    assert f"the trial run ended with status 0, before it listens on port {port}; " in done.stderr
    assert "wave" in one.inspect(one.place / "snap")["preloaded"]


def test_port_that_is_taken(one: Command, port: int) -> None:
    """A trial run could not listen there."""
    script = write(one.place / "app.py", REPORTING + HTTP)
    with socket.create_server(("127.0.0.1", port)):
        done = one("snapshot", "-o", one.place / "snap", "--learn-until", port, script, port)
    assert done.returncode == 1
    assert f"no snapshot was made: another process listens on port {port} before the trial run; " in done.stderr


@pytest.mark.parametrize("until", ["0", "65536", ""])
def test_what_is_no_condition(one: Command, until: str) -> None:
    """It is refused before anything begins."""
    script = write(one.place / "app.py", "")
    done = one("snapshot", "-o", one.place / "snap", "--learn-until", until, script)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith(f"libcriu-py: --learn-until {until!r}: ")


ADDING = """
import os, sys
def main():
    os.chdir(sys.argv[2])
    sys.path.insert(0, os.getcwd())
    import of_main
    if os.fork() == 0:
        import of_worker
        sys.exit()
    os.wait()
    open("ready", "w").close()
    import time
    time.sleep(1000)
main()
"""


def test_modules_of_a_directory_that_it_adds(one: Command) -> None:
    """They are in copies, and their sources compared; but not the own modules of processes that it forks."""
    place = one.place / "site"
    place.mkdir()
    of_main = write(place / "of_main.py", "")
    write(place / "of_worker.py", "")
    reporting = REPORTING.replace(MODULES, "('of_main', 'of_worker')").replace(
        "    sys.exit()", f"    print({str(place)!r} in sys.path)\n    sys.exit()"
    )
    script = write(one.place / "app.py", reporting + ADDING)
    words = ["--learn-until", place / "ready", script, "serve", place]
    done = one("snapshot", "-o", one.place / "snap", *words)
    assert done.returncode == 0, done.stderr
    assert one.restored(one.place / "snap", "report") == "True False\nFalse\n"
    of_main.write_text("CHANGED = True\n", encoding="utf-8")
    done = one("run", one.place / "snap", "report")
    assert (done.stdout, str(of_main) in done.stderr) == ("False False\nFalse\n", True), done.stderr
