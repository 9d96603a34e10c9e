"""uvicorn, hypercorn, gunicorn and Django, by their own command lines, conventionally and as copies."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integrations.serving import BIN, Server, ask, free_port, running, take

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ASGI = """
import asyncio, os
from contextlib import asynccontextmanager
import fastapi, pandas

@asynccontextmanager
async def lifespan(_):
    print(f"event: up {os.getpid()}", flush=True)
    yield {"served_by": os.getpid()}
    print(f"event: down {os.getpid()}", flush=True)

app = fastapi.FastAPI(lifespan=lifespan)
VERSION = 1

@app.get("/health")
async def health():
    return {"pid": os.getpid(), "version": VERSION}

@app.get("/state")
def state(request: fastapi.Request):
    return {"served_by": request.state.served_by}

@app.get("/slow")
async def slow():
    await asyncio.sleep(0.5)
    return {"slow": True}
"""
WSGI = """
import os, time
import flask, pandas
app = flask.Flask(__name__)
VERSION = 1

@app.get("/health")
def health():
    return {"pid": os.getpid(), "version": VERSION}

@app.get("/slow")
def slow():
    time.sleep(0.5)
    return {"slow": True}
"""
DJANGO = {
    "manage.py": """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
execute_from_command_line(sys.argv)
""",
    "project/__init__.py": "",
    "project/settings.py": """
SECRET_KEY = "for tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "project.urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {}
USE_TZ = True
WSGI_APPLICATION = "project.wsgi.application"
""",
    "project/urls.py": """
import os, time
import pandas
from django.http import JsonResponse
from django.urls import path
VERSION = 1
def health(_):
    return JsonResponse({"pid": os.getpid(), "version": VERSION})
def slow(_):
    time.sleep(0.5)
    return JsonResponse({"slow": True})
urlpatterns = [path("health", health), path("slow", slow)]
""",
    "project/wsgi.py": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
    "project/asgi.py": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
from django.core.asgi import get_asgi_application
application = get_asgi_application()
""",
    "warm_django_asgi.py": """
from libcriu_py import warm_app
from project.asgi import application
warm_app(application, ["/health"])
""",
    "warm_django.py": """
from libcriu_py import warm_app
from project.wsgi import application
warm_app(application, ["/health"])
""",
}
FILES = {
    "app.py": ASGI,
    "wsgi.py": WSGI,
    "warm_asgi.py": "from libcriu_py import warm_app\nfrom app import app\nwarm_app(app, ['/health'])\n",
    "warm_wsgi.py": "from libcriu_py import warm_app\nfrom wsgi import app\nwarm_app(app, ['/health'])\n",
    **DJANGO,
}


class Way(NamedTuple):
    """
    A server, and how it is told its port.

    Attributes:
        program: What is saved.
        words: Its arguments, with PORT.
        warm: The module that warms its application up.
        events: Whether the application sees those of lifespan.
        preload: What has to be imported before the rest.
    """

    program: str
    words: str
    warm: str
    events: bool = False
    preload: str = ""

    def arguments(self, port: int, *more: str) -> list[str]:
        """Return its arguments."""
        return [*self.words.replace("PORT", str(port)).split(), *more]


WAYS = {
    "uvicorn": Way("uvicorn", "app:app --port PORT", "warm_asgi", events=True),
    "hypercorn": Way("hypercorn", "app:app -b 127.0.0.1:PORT -w 0 --access-logfile -", "warm_asgi", events=True),
    "gunicorn": Way("gunicorn", "wsgi:app -b 127.0.0.1:PORT --access-logfile -", "warm_wsgi"),
    "django": Way("manage.py", "runserver --noreload PORT", "warm_django", preload="project.wsgi"),
    "django by gunicorn": Way(
        "gunicorn", "project.wsgi -b 127.0.0.1:PORT --access-logfile -", "warm_django", preload="warm_django"
    ),
    "django by uvicorn": Way(
        "uvicorn", "project.asgi:application --lifespan off --port PORT", "warm_django_asgi", preload="warm_django_asgi"
    ),
}


class Made(NamedTuple):
    """A way, with a snapshot of it."""

    way: Way
    place: Path
    snapshot: Path

    def conventional(self, port: int, *more: str) -> list[object]:
        """Return the command of a conventional start."""
        program = [BIN / "python", "manage.py"] if self.way.program == "manage.py" else [BIN / self.way.program]
        return [*program, *self.way.arguments(port, *more)]

    def copy(self, port: int, *more: str) -> list[object]:
        """Return the command of a copy."""
        return [BIN / "libcriu-py", "run", self.snapshot, *self.way.arguments(port, *more)]


def write(place: Path) -> Path:
    """Write the applications into a directory, and return it."""
    for name, text in FILES.items():
        file = place / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return place


@pytest.fixture(name="made", scope="module", params=WAYS)
def made_fixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Take a snapshot of each way, by `--learn-until`."""
    place = write(tmp_path_factory.mktemp("site"))
    way = WAYS[request.param]
    port = free_port()
    snapshot = place / "snap"
    options = ["--exit", "fast", "--learn-until", port, *(["--preload", way.preload] if way.preload else [])]
    take(snapshot, *options, way.program, *way.arguments(port), cwd=place)
    return Made(way, place, snapshot)


def log_of(said: str) -> list[str]:
    """Return the lines of an access log, without what is another time's or process's."""
    lines = [line for line in said.splitlines() if "GET /health" in line]
    return [re.sub(r"\[[^]]*\d{2}:\d{2}:\d{2}[^]]*\]|\[\d+\]|127\.0\.0\.1:\d+|\b\d+$", "*", line) for line in lines]


def wait_for_log(server: Server) -> None:
    """Wait until both requests are in the log, which some servers write after they have answered."""
    deadline = time.monotonic() + 10
    while len(log_of(server.said())) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)


def measured(made: Made, command: Callable[[int], list[object]]) -> tuple[list[str], int, float, float]:
    """Return log, status, and medians of the seconds to the first answer and of those to the end."""
    firsts, ends = [], []
    port, status, said = 0, 0, ""
    for _ in range(3):
        port = free_port()
        with running(command(port), port, cwd=made.place) as server:
            firsts.append(server.first())
            server.get()
            wait_for_log(server)
            ends.append(server.end())
        status, said = server.process.returncode, server.said()
        assert "starting conventionally" not in said
    return log_of(said.replace(str(port), "PORT")), status, statistics.median(firsts), statistics.median(ends)


def test_answers_as_conventional(made: Made) -> None:
    """Log, status and the time to end are those of a conventional start; the first answer comes earlier."""
    (log, status, first, ended), copy = (measured(made, command) for command in (made.conventional, made.copy))
    assert (len(log), copy[0], copy[1]) == (2, log, status)
    assert first > 4 * copy[2]  # the benchmark has the real ratio, on a machine that does nothing else
    assert copy[3] < 1.3 * ended + 0.1


def test_ends_after_its_answers(made: Made) -> None:
    """A request that is being answered at SIGTERM is answered, but by runserver, as ever."""
    if made.way.program == "manage.py":
        return
    port = free_port()
    answers = []
    with running(made.copy(port), port, cwd=made.place) as server:
        server.first()
        asking = threading.Thread(target=lambda: answers.append(server.get("/slow")))
        asking.start()
        time.sleep(0.2)
        server.end()
        asking.join()
    assert answers == [{"slow": True}]


def test_events_of_lifespan(made: Made) -> None:
    """Each copy has both, once, and none of the snapshot's making."""
    if not made.way.events:
        return
    for _ in range(2):
        port = free_port()
        with running(made.copy(port), port, cwd=made.place) as server:
            server.first()
            pid = server.process.pid
            assert server.get("/state") == {"served_by": pid}
            server.end()
        assert re.findall(r"event: .*", server.said()) == [f"event: up {pid}", f"event: down {pid}"]


def test_snapshot_of_warm_application(made: Made, tmp_path: Path) -> None:
    """Requests before the checkpoint need no server, and leave nothing that is a copy's own."""
    snapshot, port = tmp_path / "warm", free_port()
    words = [made.way.program, *made.way.arguments(port)]
    take(snapshot, "--exit", "fast", "--preload", made.way.warm, "--learn-until", port, *words, cwd=made.place)
    with running([BIN / "libcriu-py", "run", snapshot, *words[1:]], port, cwd=made.place) as server:
        server.first()
        answer = server.get()
        wait_for_log(server)
        assert "starting conventionally" not in server.said()
        assert len(log_of(server.said())) == 2
        if made.way.events:
            assert re.findall(r"event: .*", server.said()) == [f"event: up {answer['pid']}"]


@pytest.mark.parametrize("made", ["uvicorn", "hypercorn", "gunicorn"], indirect=True)
def test_copies_share_a_socket(made: Made) -> None:
    """Four copies take requests from one socket that each has been passed, and all get some."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        port = listening.getsockname()[1]
        listening.set_inheritable(True)
        fd = listening.fileno()
        by = {"uvicorn": ["app:app", "--fd", str(fd)]}
        words = by.get(made.way.program, [made.way.words.split()[0], "-b", f"fd://{fd}"])
        words += ["-w", "0"] if made.way.program == "hypercorn" else []
        command = [BIN / "libcriu-py", "run", made.snapshot, *words]
        servers = [running(command, port, cwd=made.place, pass_fds=[fd]) for _ in range(4)]
        with servers[0], servers[1], servers[2], servers[3]:
            check_spread(port)


@pytest.mark.parametrize("made", ["gunicorn"], indirect=True)
def test_copies_share_a_port(made: Made) -> None:
    """Four copies listen on one port by SO_REUSEPORT, and the kernel spreads connections over them."""
    port = free_port()
    command = made.copy(port, "--reuse-port", "--no-control-socket")
    servers = [running(command, port, cwd=made.place) for _ in range(4)]
    with servers[0], servers[1], servers[2], servers[3]:
        check_spread(port)


def check_spread(port: int) -> None:
    """Ask, by eight connections at a time, until four processes have answered, and most of them often."""
    counts: dict[int, int] = {}
    lock = threading.Lock()
    deadline = time.monotonic() + 30

    def work() -> None:
        while time.monotonic() < deadline:
            with lock:
                if len(counts) == 4 and min(counts.values()) >= 5:
                    return
            pid = ask_patiently(port)
            with lock:
                counts[pid] = counts.get(pid, 0) + 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 4, counts
    assert min(counts.values()) >= 5, counts


def ask_patiently(port: int) -> int:
    """Return the process that answers, also if none listens yet."""
    while True:
        try:
            answer: int = ask(port)["pid"]
        except ConnectionError:
            time.sleep(0.01)
        else:
            return answer


@pytest.mark.parametrize("made", ["gunicorn"], indirect=True)
def test_reload_by_signal(made: Made) -> None:
    """On SIGHUP gunicorn's workers read the application anew, which is therefore not in the snapshot."""
    file, port = made.place / "wsgi.py", free_port()
    try:
        with running(made.copy(port), port, cwd=made.place) as server:
            server.first()
            file.write_text(WSGI.replace("VERSION = 1", "VERSION = 22"), encoding="utf-8")
            server.process.send_signal(signal.SIGHUP)
            wait_for_version(server.port, 22)
        with running(made.copy(port), port, cwd=made.place) as server:
            server.first()
            assert server.get()["version"] == 22
            assert "starting conventionally" not in server.said()
    finally:
        file.write_text(WSGI, encoding="utf-8")


@pytest.mark.parametrize("made", ["uvicorn"], indirect=True)
def test_reload_after_an_edit(made: Made) -> None:
    """The server's own --reload works in a copy, and a start after the edit is conventional."""
    file, port = made.place / "app.py", free_port()
    times = file.stat()
    try:
        with running(made.copy(port, "--reload"), port, cwd=made.place) as server:
            server.first()
            file.write_text(ASGI.replace("VERSION = 1", "VERSION = 22"), encoding="utf-8")
            wait_for_version(port, 22)
        with running(made.copy(port), port, cwd=made.place) as server:
            server.first()
            assert server.get()["version"] == 22
            assert "starting conventionally: " in server.said()
    finally:
        file.write_text(ASGI, encoding="utf-8")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def wait_for_version(port: int, version: int) -> None:
    """Ask until another version of the application answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            found = ask(port)["version"]
        except ConnectionError:
            found = None
        if found == version:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
