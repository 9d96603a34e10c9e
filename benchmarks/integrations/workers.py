"""Workers of Celery and RQ whose task needs pandas, from the start of the worker to the end of the first task."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.integrations import Case
from benchmarks.measure import RunError, Unavailable

_TASKS = """
from celery import Celery
import jobs

app = Celery("tasks")
work = app.task(jobs.work)
"""
_JOBS = """
import os
import pandas
import redis

def work():
    result = pandas.Series(range(4)).sum()
    redis.Redis.from_url(os.environ["RQ_REDIS_URL"]).rpush("done", str(result))
"""
_CELERY = ["-A", "tasks", "worker", "--without-mingle", "-c", "2"]
_LIMIT = 60
_servers: dict[Path, subprocess.Popen[bytes]] = {}


def _beside(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def _env(place: Path) -> dict[str, str]:
    socket = place / "redis.sock"
    return {**os.environ, "CELERY_BROKER_URL": f"redis+socket://{socket}", "RQ_REDIS_URL": f"unix://{socket}"}


def _serve(place: Path) -> None:
    """Start redis, and write the tasks."""
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("redis-server is not installed (scripts/install-test-tools)")
    words = ["--port", "0", "--unixsocket", str(place / "redis.sock"), "--save", "", "--dir", str(place)]
    _servers[place] = subprocess.Popen([program, *words], stdout=subprocess.DEVNULL)
    end = time.monotonic() + _LIMIT
    while not (place / "redis.sock").exists():
        if time.monotonic() > end:
            raise RunError("redis-server does not listen")
        time.sleep(0.01)
    (place / "tasks.py").write_text(_TASKS, encoding="utf-8")
    (place / "jobs.py").write_text(_JOBS, encoding="utf-8")


def _snapshot(place: Path, *words: str) -> None:
    argv = [_beside("libcriu-py"), "snapshot", "-o", "snap", "--exit", "fast", *words]
    done = subprocess.run(argv, cwd=place, env=_env(place), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RunError(done.stderr)


def _end(place: Path) -> None:
    server = _servers.pop(place, None)
    if server is not None:
        server.terminate()
        server.wait()


def _first_task(place: Path, send: str, argv: list[str]) -> float:
    """Send a task, start the worker, wait for what the task has done, and end the worker."""
    import redis

    env = _env(place)
    client = redis.Redis(unix_socket_path=str(place / "redis.sock"))
    subprocess.run([sys.executable, "-c", send], cwd=place, env=env, check=True)
    start = time.perf_counter()
    with (place / "log").open("wb") as log:
        worker = subprocess.Popen(argv, cwd=place, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        done = client.blpop(["done"], _LIMIT)
        seconds = time.perf_counter() - start
    finally:
        worker.terminate()
        worker.wait()
        client.close()
    if done is None:
        raise RunError((place / "log").read_text(encoding="utf-8", errors="replace"))
    return seconds


def _case(name: str, send: str, conventional: list[str], learn: list[str], arguments: list[str]) -> Case:
    def prepare(place: Path) -> None:
        _serve(place)
        _snapshot(place, *learn)

    warm = [_beside("libcriu-py"), "run", "--no-fallback", "snap", "--", *arguments]
    return Case(
        f"{name}: the first task, with pandas",
        3,
        prepare,
        conventional=lambda place: _first_task(place, send, [*conventional, *arguments]),
        warm=lambda place: _first_task(place, send, warm),
        clean=_end,
    )


def _celery(pool: str) -> Case:
    learn = ["--learn", "-A tasks worker --pool solo -Q nothing", "--learn-until", "4s", "-m", "celery"]
    send = "import tasks; tasks.work.delay()"
    return _case(f"Celery, {pool}", send, [_beside("celery")], learn, [*_CELERY, "--pool", pool])


def _rq() -> Case:
    learn = ["--preload", "pandas", "--learn", "worker nothing", "--learn-until", "2s", _beside("rq")]
    send = (
        "import os, redis, rq\n"
        "rq.Queue(connection=redis.Redis.from_url(os.environ['RQ_REDIS_URL'])).enqueue('jobs.work')"
    )
    return _case("RQ", send, [_beside("rq")], learn, ["worker"])


CASES = [_celery("solo"), _celery("prefork"), _rq()]
