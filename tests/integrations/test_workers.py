"""Workers of Celery and RQ that are copies, with a real redis."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.integrations.brokers import COMMAND, Broker, serve, snapshot, wait, worker

if TYPE_CHECKING:
    from collections.abc import Iterator

CELERY = """
import os, signal, sys
import redis
from celery import Celery

IS_COPY = "colorsys" in sys.modules
app = Celery("tasks")
app.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True, broker_transport_options={"visibility_timeout": 3},
)

def store():
    return redis.Redis.from_url(os.environ["CELERY_BROKER_URL"])

@app.task
def where():
    store().rpush("where", f"{IS_COPY} {os.getpid()}")

@app.task
def work(number, victim=False):
    "Die the first time, if that is asked for; count how often the work was done."
    if store().incr(f"tried:{number}") == 1 and victim:
        if victim == "all":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    store().incr(f"done:{number}")
    store().incr("done")
"""
RQ = """
import os, signal, sys
import redis

def store():
    return redis.Redis.from_url(os.environ["RQ_REDIS_URL"])

def where():
    return "colorsys" in sys.modules, os.getpid()

def work(number, victim=False):
    if store().incr(f"tried:{number}") == 1 and victim:
        os.kill(os.getpid(), signal.SIGKILL)
    store().incr(f"done:{number}")
    return number
"""
IS_TRIED = {True: "2", False: "1"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Serve for all tests."""
    with serve(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(autouse=True)
def empty(broker: Broker) -> None:
    """Begin each test with nothing in the broker."""
    broker.client.flushall()


@pytest.fixture(scope="module")
def celery_place(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Path:
    """Return a directory with a snapshot of Celery's worker, whose trial run takes no tasks of others."""
    place = tmp_path_factory.mktemp("celery")
    (place / "celery_tasks.py").write_text(CELERY, encoding="utf-8")
    learn = "-A celery_tasks worker --pool solo -Q nothing"
    words = ["--exit", "fast", "--preload", "colorsys", "--learn", learn, "--learn-until", "4s", "-m", "celery"]
    snapshot(words, place, broker)
    return place


@pytest.fixture
def tasks(celery_place: Path, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the module of tasks, which sends them to the broker of these tests."""
    monkeypatch.setenv("CELERY_BROKER_URL", broker.url)
    monkeypatch.syspath_prepend(celery_place)
    found = importlib.import_module("celery_tasks")
    yield found
    found.app.close()


def celery(pool: str, *options: str) -> list[str]:
    """Return the command of a warm worker."""
    worker_options = ["worker", "--without-mingle", "--pool", pool, "-l", "info", *options]
    return [COMMAND, "run", "--no-fallback", "worker.snap", "--", "-A", "celery_tasks", *worker_options]


def celery_left(broker: Broker) -> list[int]:
    """Return how many tasks wait, and how many were taken and are not acknowledged."""
    client = broker.client
    return [client.llen("celery"), client.hlen("unacked"), client.zcard("unacked_index")]


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_celery_is_a_copy(pool: str, tasks: Any, celery_place: Path, broker: Broker) -> None:
    """A worker of each kind does tasks, and ends with status 0 by SIGTERM."""
    with worker(celery(pool, "-c", "2"), celery_place, broker) as process:
        for _ in range(20):
            tasks.where.delay()
        wait(lambda: broker.client.llen("where") == 20)
    found = [line.split() for line in broker.client.lrange("where", 0, -1)]
    assert all(is_copy == "True" for is_copy, _ in found)
    assert (str(process.pid) in {pid for _, pid in found}) == (pool != "prefork")
    assert celery_left(broker) == [0, 0, 0]


def test_celery_workers_at_once(tasks: Any, celery_place: Path, broker: Broker) -> None:
    """Copies of one snapshot are different workers: each answers for itself, and no task is done twice."""
    with (
        worker(celery("solo", "-n", "one@%h"), celery_place, broker),
        worker(celery("solo", "-n", "two@%h"), celery_place, broker),
    ):
        wait(lambda: len(tasks.app.control.ping(timeout=1) or ()) == 2)
        for number in range(200):
            tasks.work.delay(number)
        wait(lambda: broker.client.get("done") == "200")
    assert {broker.client.get(f"done:{number}") for number in range(200)} == {"1"}
    assert celery_left(broker) == [0, 0, 0]


def test_celery_processes_that_die(tasks: Any, celery_place: Path, broker: Broker) -> None:
    """Where processes of the pool die in the midst of tasks, each is done and acknowledged once."""
    with worker(celery("prefork", "-c", "2"), celery_place, broker):
        for number in range(60):
            tasks.work.delay(number, number % 6 == 0)
        wait(lambda: broker.client.get("done") == "60")
        wait(lambda: celery_left(broker) == [0, 0, 0])
    for number in range(60):
        assert broker.client.get(f"done:{number}") == "1"
        assert broker.client.get(f"tried:{number}") == IS_TRIED[number % 6 == 0]


@pytest.mark.parametrize(("pool", "victim"), [("solo", True), ("prefork", "all")])
def test_celery_worker_that_dies(pool: str, victim: object, tasks: Any, celery_place: Path, broker: Broker) -> None:
    """Where the worker itself dies, another copy does what it has left, and the rest, once."""
    for number in range(10):
        tasks.work.delay(number, victim if number == 2 else False)
    with worker(celery(pool, "-c", "1"), celery_place, broker) as process:
        assert process.wait(60) in (-9, 128 + 9)
    # Celery looks for tasks to give again when it starts, and then seldom.
    wait(lambda: broker.client.zrange("unacked_index", -1, -1, withscores=True)[0][1] + 4 < time.time())
    with worker(celery(pool, "-c", "1"), celery_place, broker):
        wait(lambda: broker.client.get("done") == "10")
        wait(lambda: celery_left(broker) == [0, 0, 0])
    for number in range(10):
        assert broker.client.get(f"done:{number}") == "1"
        assert broker.client.get(f"tried:{number}") == IS_TRIED[number == 2]


def test_celery_tasks_that_change(tasks: Any, celery_place: Path, broker: Broker) -> None:
    """A worker whose tasks have changed since the snapshot starts conventionally, with the new ones."""
    path = celery_place / "celery_tasks.py"
    before = path.stat()
    path.write_text(CELERY.replace("{IS_COPY} ", "new "), encoding="utf-8")
    argv = [word for word in celery("solo") if word != "--no-fallback"]
    try:
        with worker(argv, celery_place, broker):
            tasks.where.delay()
            wait(lambda: broker.client.llen("where"))
    finally:
        path.write_text(CELERY, encoding="utf-8")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert broker.client.lpop("where").startswith("new ")
    assert "starting conventionally" in (celery_place / "log").read_text()


@pytest.fixture(scope="module")
def rq_place(tmp_path_factory: pytest.TempPathFactory, broker: Broker) -> Path:
    """Return a directory with a snapshot of RQ's worker."""
    place = tmp_path_factory.mktemp("rq")
    (place / "rq_jobs.py").write_text(RQ, encoding="utf-8")
    words = ["--exit", "fast", "--preload", "colorsys", "--learn", "worker nothing", "--learn-until", "2s"]
    snapshot([*words, str(Path(sys.executable).with_name("rq"))], place, broker)
    return place


@pytest.fixture
def queue(broker: Broker) -> Any:
    """Return RQ's queue."""
    redis: Any = importlib.import_module("redis")
    return importlib.import_module("rq").Queue(connection=redis.Redis.from_url(broker.url))


def rq_worker(*options: str) -> list[str]:
    """Return the command of a warm worker."""
    return [COMMAND, "run", "--no-fallback", "worker.snap", "--", "worker", *options]


@pytest.mark.parametrize("kind", ["rq.Worker", "rq.SimpleWorker"])
def test_rq_is_a_copy(kind: str, queue: Any, rq_place: Path, broker: Broker) -> None:
    """Both kinds of workers do jobs, and end with status 0 by SIGTERM."""
    with worker(rq_worker("-w", kind), rq_place, broker) as process:
        jobs = [queue.enqueue("rq_jobs.where") for _ in range(10)]
        wait(lambda: all(job.return_value(refresh=True) for job in jobs))
        found = [job.return_value() for job in jobs]
        assert all(is_copy for is_copy, _ in found)
        assert {pid == process.pid for _, pid in found} == {kind == "rq.SimpleWorker"}


def test_rq_workers_at_once(queue: Any, rq_place: Path, broker: Broker) -> None:
    """Copies of one snapshot have names of their own, and no job is done twice."""
    workers: Any = importlib.import_module("rq").Worker
    with worker(rq_worker(), rq_place, broker), worker(rq_worker(), rq_place, broker):
        wait(lambda: len(workers.all(connection=queue.connection)) == 2)
        jobs = [queue.enqueue("rq_jobs.work", number) for number in range(40)]
        wait(lambda: all(job.return_value(refresh=True) is not None for job in jobs))
    assert {broker.client.get(f"done:{number}") for number in range(40)} == {"1"}


def test_rq_processes_that_die(queue: Any, rq_place: Path, broker: Broker) -> None:
    """Where the processes of jobs die, each job is done once, by one more try."""
    retry = importlib.import_module("rq").Retry(max=1)
    with worker(rq_worker(), rq_place, broker):
        jobs = [queue.enqueue("rq_jobs.work", number, number % 6 == 0, retry=retry) for number in range(30)]
        wait(lambda: all(job.return_value(refresh=True) is not None for job in jobs))
    for number in range(30):
        assert broker.client.get(f"done:{number}") == "1"
        assert broker.client.get(f"tried:{number}") == IS_TRIED[number % 6 == 0]
    assert (len(queue), queue.failed_job_registry.count, queue.started_job_registry.count) == (0, 0, 0)
